# Writes gallery_series.json: what R says about the data of the gallery's pages mares, clinical_trial and
# forecasts. README.md beside this file describes every field.
#
#     Rscript tests/reference/make_gallery_series.R        (from the root of the repository)
#
# The page clinical_trial, which generates its data, is run by the Python that the environment variable
# PYTHON names, or by python3.

suppressPackageStartupMessages({ library(lme4); library(nlme) })
source("tests/reference/common.R")

# nlminb of gls stops early, so optim goes on from there.
refined <- function(formula, data, correlation, weights = NULL) {
  first <- gls(formula, data, correlation(), weights, control = glsControl(msMaxIter = 1000))
  parts <- first$modelStruct
  if (!is.null(weights)) {
    weights <- varIdent(coef(parts$varStruct, unconstrained = FALSE), formula(weights))
  }
  gls(formula, data, correlation(unname(coef(parts$corStruct, unconstrained = FALSE))), weights,
      control = glsControl(opt = "optim", msTol = 1e-15, msMaxIter = 1000))
}

## Mares -----------------------------------------------------------------------------------------

ovary <- read.csv(file.path(data_dir, "ovary.csv"))
ovary$Mare <- factor(ovary$Mare)
ovary$sine <- sin(2 * pi * ovary$Time)
ovary$cosine <- cos(2 * pi * ovary$Time)
cycle <- follicles ~ sine + cosine
control <- lmeControl(rel.tol = 1e-14, returnObject = TRUE, msMaxIter = 1000, msMaxEval = 5000)
lines <- list(Mare = pdDiag(~ sine))
by_day <- corAR1(form = ~ Day | Mare)
mares <- suppressWarnings(list(
  "random intercept" = lme(cycle, ovary, ~ 1 | Mare, control = control),
  "random intercept and sine" = lme(cycle, ovary, lines, control = control),
  "AR(1)" = refined(cycle, ovary, function(value = 0) corAR1(value, ~ Day | Mare)),
  "AR(1), random intercept" = lme(cycle, ovary, ~ 1 | Mare, by_day, control = control),
  "AR(1), random intercept and sine" = lme(cycle, ovary, lines, by_day, control = control)
))
about_mares <- lapply(mares, function(model) {
  covariance <- if (inherits(model, "lme")) model$varFix else model$varBeta
  list(log_likelihood = as.numeric(logLik(model)), aic = AIC(model),
       std_error = as.list(unname(sqrt(diag(covariance)))),
       correlation = as.list(unname(coef(model$modelStruct$corStruct, unconstrained = FALSE))))
})

## Clinical trial --------------------------------------------------------------------------------

trial <- generated("clinical_trial", "trial")
trial$arm <- relevel(trial$arm, "drug")
trial$visit <- match(trial$week, sort(unique(trial$week)))
trial$weeks <- trial$week
trial$week <- factor(trial$week)
change <- change ~ baseline * week + arm * week
by_visit <- varIdent(form = ~ 1 | visit)
patients <- function(make, form) function(...) make(..., form = form)
fits <- list(
  unstructured = refined(change, trial, patients(corSymm, ~ visit | patient), by_visit),
  heterogeneous_ar1 = refined(change, trial, patients(corAR1, ~ weeks | patient), by_visit),
  heterogeneous_compound_symmetry =
    refined(change, trial, patients(corCompSymm, ~ visit | patient), by_visit),
  compound_symmetry = refined(change, trial, patients(corCompSymm, ~ visit | patient))
)
mmrm <- fits$unstructured
baseline <- mean(tapply(trial$baseline, trial$patient, function(own) own[1]))
grid <- expand.grid(arm = levels(trial$arm), week = levels(trial$week), baseline = baseline)
weights <- model.matrix(~ baseline * week + arm * week, grid)
means <- weights %*% coef(mmrm)
mean_errors <- sqrt(diag(weights %*% mmrm$varBeta %*% t(weights)))
first <- trial[trial$visit == 1, ]
ancova <- coef(summary(lm(change ~ baseline + arm, first)))["armplacebo", ]
about_trial <- list(
  data = list(n_rows = nrow(trial), change = mean(trial$change), baseline = baseline),
  criteria = lapply(fits, function(model) -2 * as.numeric(logLik(model))),
  std_error = as.list(unname(sqrt(diag(mmrm$varBeta)))),
  correlation = rows(unclass(corMatrix(mmrm$modelStruct$corStruct)[[1]])),
  means = lapply(seq_len(nrow(grid)), function(i) {
    list(week = as.character(grid$week[i]), arm = as.character(grid$arm[i]), estimate = means[i],
         std_error = mean_errors[i])
  }),
  ancova = list(estimate = -ancova[["Estimate"]], std_error = ancova[["Std. Error"]],
                df = nrow(first) - 3)
)

## Forecasts -------------------------------------------------------------------------------------

milk <- read.csv(file.path(data_dir, "milk.csv"))
own <- milk[milk$Cow == "BL22", ]
later <- own$Time > 15
known <- milk[!(milk$Cow == "BL22" & milk$Time > 15), ]
model <- refined(protein ~ factor(Time) + Diet, known, function(value = 0) corAR1(value, ~ Time | Cow))
r <- coef(model$modelStruct$corStruct, unconstrained = FALSE)
V <- model$sigma^2 * r^abs(outer(own$Time, own$Time, "-"))
X <- model.matrix(~ factor(Time) + Diet, milk)[milk$Cow == "BL22", ]
weights <- V[later, !later] %*% solve(V[!later, !later])
mean <- X[later, ] %*% coef(model) +
  weights %*% (own$protein[!later] - X[!later, ] %*% coef(model))
moved <- X[later, ] - weights %*% X[!later, ]
variance <- V[later, later] - weights %*% V[!later, later] + moved %*% model$varBeta %*% t(moved)
about_forecasts <- list(correlation = unname(r), mean = as.list(unname(mean[, 1])),
                        std = as.list(unname(sqrt(diag(variance)))))

con <- file("tests/reference/gallery_series.json", "wb")
writeLines(c("{",
  paste0(' "versions": ', to_json(versions_of("nlme")), ","),
  ' "mares":', paste0(one_line_per_key(about_mares), ","),
  ' "clinical_trial":', paste0(one_line_per_key(about_trial), ","),
  ' "forecasts":', one_line_per_key(about_forecasts),
  "}"), con)
close(con)

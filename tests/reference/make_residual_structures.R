# Writes residual_structures.json: what nlme says about models with residual structures, by REML and by ML.
#
#     Rscript tests/reference/make_residual_structures.R        (from the root of the repository)
#
# nlme stops early: gls hands nlminb no tolerance at all. So every model is fitted by nlminb and by optim,
# three times more from where the better one stopped, and AR(1) from several correlations.

suppressPackageStartupMessages({ library(lme4); library(nlme) })
source("tests/reference/common.R")

## Data ------------------------------------------------------------------------------------------

stored <- function(name, ...) {
  data <- read.csv(file.path(data_dir, paste0(name, ".csv")))
  for (column in c(...)) data[[column]] <- factor(data[[column]])
  data
}
ovary <- stored("ovary", "Mare")
orthodont <- stored("orthodont", "Subject")
orthodont$Sex <- factor(orthodont$Sex, c("Male", "Female"))
bodyweight <- stored("bodyweight", "Rat", "Diet")
dialyzer <- stored("dialyzer", "Subject", "QB")
milk <- stored("milk", "Cow", "Diet")
sitka <- stored("sitka", "tree", "treat")
sitka$visit <- match(sitka$Time, sort(unique(sitka$Time)))
spruce <- stored("spruce", "Tree")
sleepstudy <- stored("sleepstudy", "Subject")
dyestuff2 <- stored("dyestuff2", "Batch")

# Trees that are lost in the course of the summer.
dropout <- sitka[as.integer(sitka$tree) %% 4 != 0 | sitka$visit <= 1 + as.integer(sitka$tree) %% 3, ]
# Two days in seven are missing; three people have been measured once.
gaps <- sleepstudy[!(seq_len(nrow(sleepstudy)) - 1) %% 7 %in% c(2, 3), ]
one_row <- sleepstudy[!sleepstudy$Subject %in% c("308", "309", "310") | sleepstudy$Days == 0, ]

## Models ----------------------------------------------------------------------------------------

waves <- follicles ~ sin(2 * pi * Time) + cos(2 * pi * Time)
growth <- distance ~ age * Sex
cubic <- rate ~ (pressure + I(pressure^2) + I(pressure^3)) * QB
quartic <- rate ~ (pressure + I(pressure^2) + I(pressure^3) + I(pressure^4)) * QB
sizes <- size ~ Time * treat
visits <- size ~ factor(Time) * treat

# The correlation and the variance function of a model as functions of nlme's starting values.
ar1 <- function(form) function(value = 0) corAR1(value, form)
car1 <- function(form) function(value = 0.2) corCAR1(value, form)
compound <- function(form) function(value = 0) corCompSymm(value, form)
symmetric <- function(form) function(value = numeric(0)) corSymm(value, form)
ident <- function(form) function(value = numeric(0)) varIdent(value, form)
power <- function(form) function(value = numeric(0)) varPower(value, form)

model <- function(formula, data, correlation = NULL, variance = NULL, random = NULL) {
  list(formula = formula, data = data, correlation = correlation, variance = variance, random = random)
}
models <- list(
  ovary_gls = model(waves, ovary, ar1(~ Day | Mare)),
  ovary_lme = model(waves, ovary, ar1(~ Day | Mare), random = ~ 1 | Mare),
  orthodont_symmetric = model(growth, orthodont, symmetric(~ 1 | Subject), ident(~ 1 | age)),
  orthodont_compound = model(growth, orthodont, compound(~ 1 | Subject)),
  orthodont_compound_strata = model(growth, orthodont, compound(~ 1 | Subject), ident(~ 1 | Sex)),
  orthodont_ar1 = model(growth, orthodont, ar1(~ 1 | Subject), ident(~ 1 | age)),
  orthodont_strata = model(growth, orthodont, NULL, ident(~ 1 | Sex), ~ 1 | Subject),
  orthodont_power = model(growth, orthodont, NULL, power(~ age)),
  bodyweight_continuous = model(weight ~ Time * Diet, bodyweight, car1(~ Time | Rat)),
  bodyweight_lme = model(weight ~ Time * Diet, bodyweight, car1(~ Time | Rat), random = ~ Time | Rat),
  bodyweight_lme_power = model(weight ~ Time * Diet, bodyweight, car1(~ Time | Rat), power(~ Time),
                               ~ 1 | Rat),
  dialyzer_power = model(cubic, dialyzer, ar1(~ index | Subject), power(~ pressure)),
  dialyzer_lme = model(cubic, dialyzer, ar1(~ index | Subject), power(~ pressure), ~ 1 | Subject),
  dialyzer_lme_power = model(quartic, dialyzer, NULL, power(~ pressure),
                             ~ pressure + I(pressure^2) | Subject),
  milk_gls = model(protein ~ Diet + Time, milk, ar1(~ Time | Cow)),
  milk_lme = model(protein ~ Diet + Time, milk, ar1(~ Time | Cow), random = ~ 1 | Cow),
  sitka_gls = model(sizes, sitka, car1(~ Time | tree)),
  sitka_symmetric = model(visits, sitka, symmetric(~ visit | tree), ident(~ 1 | visit)),
  sitka_dropout = model(visits, dropout, symmetric(~ visit | tree), ident(~ 1 | visit)),
  sitka_compound = model(visits, sitka, compound(~ visit | tree), ident(~ 1 | visit)),
  sitka_lme = model(sizes, sitka, car1(~ Time | tree), random = ~ 1 | tree),
  spruce_gls = model(logSize ~ factor(days), spruce, car1(~ days | Tree)),
  spruce_lme = model(logSize ~ factor(days), spruce, car1(~ days | Tree), random = ~ 1 | Tree),
  sleepstudy_gls = model(Reaction ~ Days, sleepstudy, ar1(~ Days | Subject)),
  sleepstudy_lme = model(Reaction ~ Days, sleepstudy, ar1(~ Days | Subject), random = ~ Days | Subject),
  gaps_gls = model(Reaction ~ Days, gaps, ar1(~ Days | Subject)),
  gaps_lme = model(Reaction ~ Days, gaps, ar1(~ Days | Subject), random = ~ Days | Subject),
  one_row_gls = model(Reaction ~ Days, one_row, ar1(~ Days | Subject)),
  one_row_lme = model(Reaction ~ Days, one_row, ar1(~ Days | Subject), random = ~ 1 | Subject),
  dyestuff2_compound = model(Yield ~ 1, dyestuff2, compound(~ 1 | Batch))
)

## Fits ------------------------------------------------------------------------------------------

controls <- list(
  gls = list(glsControl(msMaxIter = 1000),
             glsControl(opt = "optim", msTol = 1e-15, msMaxIter = 1000)),
  lme = list(lmeControl(msMaxIter = 1000, msMaxEval = 5000, rel.tol = 1e-14, returnObject = TRUE),
             lmeControl(opt = "optim", msTol = 1e-15, reltol = 1e-15, msMaxIter = 1000, niterEM = 0,
                        returnObject = TRUE))
)

# A correlation or variance function at the values where an earlier fit stopped.
from <- function(make, part, start = NULL) {
  if (is.null(part)) return(if (is.null(start)) make() else make(start))
  found <- coef(part, unconstrained = FALSE)
  make(if (inherits(part, "varIdent")) found else unname(found))
}

fit <- function(m, method, control, start, earlier) {
  parts <- earlier$modelStruct
  arguments <- list(m$formula, data = m$data, method = method, control = control)
  if (!is.null(m$correlation)) arguments$correlation <- from(m$correlation, parts$corStruct, start)
  if (!is.null(m$variance)) arguments$weights <- from(m$variance, parts$varStruct)
  if (is.null(m$random)) return(do.call(gls, arguments))
  arguments$random <- if (is.null(parts)) m$random else parts$reStruct
  do.call(lme, arguments)
}

criterion <- function(found) -2 * as.numeric(logLik(found))
better <- function(one, other) {
  if (is.null(one) || (!is.null(other) && criterion(other) < criterion(one))) other else one
}

precise <- function(m, method) {
  by_distance <- !is.null(m$correlation) && inherits(m$correlation(), c("corAR1", "corCAR1"))
  best <- NULL
  # Correlations of distant rows are zero for a small start, and do not change from there.
  for (start in if (by_distance) list(0.2, 0.9, 0.99) else list(NULL)) {
    reached <- NULL
    for (round in 1:4) {
      for (control in controls[[if (is.null(m$random)) "gls" else "lme"]]) {
        found <- tryCatch(suppressWarnings(fit(m, method, control, start, reached)),
                          error = function(e) NULL)
        reached <- better(reached, found)
      }
    }
    best <- better(best, reached)
  }
  best
}

# nlme's standard errors by ML have a factor sqrt(n / (n - p)), those of gls in varBeta, those of lme in
# its summary alone. These here are without.
describe <- function(found, method) {
  mixed <- inherits(found, "lme")
  beta <- if (mixed) nlme::fixef(found) else coef(found)
  covariance <- if (mixed) found$varFix else found$varBeta
  n <- found$dims$N
  if (method == "ML" && !mixed) covariance <- covariance * (n - length(beta)) / n
  part <- function(name) as.list(unname(coef(found$modelStruct[[name]], unconstrained = FALSE)))
  c(list(criterion = criterion(found), coef = as.list(unname(beta)),
         std_error = as.list(unname(sqrt(diag(covariance)))), sigma = found$sigma,
         correlation = part("corStruct"), variance = part("varStruct")),
    if (mixed) list(random_covariance = rows(unclass(getVarCov(found)))))
}
results <- lapply(models, function(m) {
  lapply(c(REML = "REML", ML = "ML"), function(method) describe(precise(m, method), method))
})
text <- to_json(c(list(versions = versions_of("nlme")), results))
writeLines(text, "tests/reference/residual_structures.json")

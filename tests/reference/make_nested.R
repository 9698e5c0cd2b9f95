# Writes nested.json: what lme4, lmerTest and pbkrtest say about nested models.
#
#     Rscript tests/reference/make_nested.R        (from the root of the repository)

suppressPackageStartupMessages({
  library(lme4)
  library(lmerTest)
  library(pbkrtest)
  library(splines)
  library(jsonlite)
})

tight <- lmerControl(calc.derivs = FALSE, optimizer = "nloptwrap",
                     optCtrl = list(xtol_abs = 1e-12, ftol_abs = 1e-13, maxeval = 10000),
                     check.conv.singular = "ignore", check.conv.grad = "ignore")
data(sleepstudy, package = "lme4")
data(cake, package = "lme4")
# Columns that the data sets do not have; the tests make the same.
sleepstudy$half <- factor(rep(c("a", "b"), 90))
sleepstudy$z <- rep_len(c(0, 1, 3, -2, 1, 0, 2), 180)
frames <- list(sleepstudy = sleepstudy, cake = cake)

fit <- function(formula, data, reml) {
  assign("frame", frames[[data]], globalenv())
  call <- bquote(lmer(.(as.formula(formula)), frame, REML = .(reml), control = tight))
  suppressMessages(suppressWarnings(eval(call, globalenv())))
}

## anova() -----------------------------------------------------------------------------------------

pairs <- list(
  list("sleepstudy", "Reaction ~ Days + (Days | Subject)",
       "Reaction ~ factor(Days) + (Days | Subject)"),
  list("sleepstudy", "Reaction ~ Days + (Days | Subject)",
       "Reaction ~ poly(Days, 2) + (Days | Subject)"),
  list("sleepstudy", "Reaction ~ Days + (1 | Subject)",
       "Reaction ~ bs(Days, df = 4) + (1 | Subject)"),
  list("sleepstudy", "Reaction ~ Days * z + (1 | Subject)",
       "Reaction ~ z * Days + half + (1 | Subject)"),
  list("sleepstudy", "Reaction ~ half * Days + (1 | Subject)",
       "Reaction ~ 0 + half + half:Days + z + (1 | Subject)"),
  list("sleepstudy", "Reaction ~ Days + (Days | Subject)",
       "Reaction ~ Days + (poly(Days, 2) | Subject)"),
  list("sleepstudy", "Reaction ~ Days + (1 | Subject)",
       "Reaction ~ Days + (0 + half | Subject)"),
  list("cake", "angle ~ recipe * temp + (1 | recipe:replicate)",
       "angle ~ temp * recipe + I(temp^2) + (1 | recipe:replicate)"),
  list("cake", "angle ~ recipe * temp + (1 | recipe:replicate)",
       "angle ~ recipe * temp + I(temp^2) + (1 | replicate:recipe)")
)
comparisons <- lapply(pairs, function(own) {
  table <- anova(fit(own[[2]], own[[1]], FALSE), fit(own[[3]], own[[1]], FALSE))
  list(data = own[[1]], formulas = c(own[[2]], own[[3]]), chi2 = table$Chisq[2],
       df = table$Df[2], p = table[["Pr(>Chisq)"]][2])
})
chain <- c("Reaction ~ 1 + (1 | Subject)", "Reaction ~ Days + (1 | Subject)",
           "Reaction ~ Days + (Days | Subject)", "Reaction ~ poly(Days, 2) + (Days | Subject)")
models <- lapply(chain, fit, "sleepstudy", FALSE)
table <- do.call(anova, models)
several <- list(formulas = chain, npar = table$npar, aic = table$AIC, bic = table$BIC,
                log_likelihood = table$logLik, chi2 = table$Chisq, df = table$Df,
                p = table[["Pr(>Chisq)"]])

## ranova() ----------------------------------------------------------------------------------------

formulas <- c("(1 | Subject)", "(Days | Subject)", "(Days || Subject)", "(Days + z | Subject)",
              "(Days * z | Subject)", "(half | Subject)", "(0 + half | Subject)",
              "(1 | Subject) + (0 + Days + z | Subject)", "(poly(Days, 2) | Subject)")
deletions <- unlist(lapply(formulas, function(random) {
  lapply(c(TRUE, FALSE), function(reml) {
    formula <- paste("Reaction ~ Days +", random)
    table <- suppressMessages(suppressWarnings(ranova(fit(formula, "sleepstudy", reml))))
    list(formula = formula, reml = reml, terms = rownames(table), log_likelihood = table$logLik,
         aic = table$AIC, lrt = table$LRT, df = table$Df, p = table[["Pr(>Chisq)"]])
  })
}), recursive = FALSE)

## PBmodcomp() -------------------------------------------------------------------------------------

tests <- list(
  list("sleepstudy", "Reaction ~ Days + (Days | Subject)",
       "Reaction ~ poly(Days, 2) + (Days | Subject)"),
  list("cake", "angle ~ temp + (1 | recipe:replicate)",
       "angle ~ recipe + temp + (1 | recipe:replicate)")
)
bootstraps <- lapply(tests, function(own) {
  set.seed(1)
  small <- fit(own[[2]], own[[1]], FALSE)
  test <- suppressMessages(suppressWarnings(
    PBmodcomp(fit(own[[3]], own[[1]], FALSE), small, nsim = 2000, cl = 1)))
  table <- summary(test)$test
  list(data = own[[1]], formulas = c(own[[2]], own[[3]]), n_sim = 2000,
       statistic = table["LRT", "stat"], df = table["LRT", "df"],
       p = table["PBtest", "p.value"], bartlett = table["Bartlett", "p.value"],
       gamma = table["Gamma", "p.value"])
})

versions <- sapply(c("lme4", "lmerTest", "pbkrtest"), function(own) format(packageVersion(own)))
write_json(list(versions = as.list(versions), comparisons = comparisons, several = several,
                deletions = deletions, bootstraps = bootstraps),
           "tests/reference/nested.json", auto_unbox = TRUE, digits = NA, na = "null",
           pretty = TRUE)

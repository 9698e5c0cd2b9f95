# Writes offset.json: what lme4 says about models with an offset, in the formula and as an argument.
#
#     Rscript tests/reference/make_offset.R        (from the root of the repository)

suppressPackageStartupMessages(library(lme4))
source("tests/reference/common.R")
tight <- lmerControl(calc.derivs = FALSE, optimizer = "bobyqa",
                     optCtrl = list(rhobeg = 0.02, rhoend = 1e-10, maxfun = 10000))
data(sleepstudy, package = "lme4")
# A column that the data set does not have; the tests make the same.
sleepstudy$t <- rep_len(c(1, 2, 5, 3, 1.5, 4, 2.5), 180)
new <- sleepstudy[c(1, 30, 95), ]
new$t <- c(2, 7, 0.5)

describe <- function(model, predicts) {
  found <- list(
    criterion = -2 * as.numeric(logLik(model)), coef = as.list(unname(fixef(model))),
    coef_covariance = rows(as.matrix(vcov(model))),
    random_covariance = rows(as.matrix(VarCorr(model)$Subject)),
    noise_variance = sigma(model)^2,
    fitted = as.list(unname(fitted(model))[1:10]),
    residuals = as.list(unname(residuals(model))[1:10]))
  if (predicts) {
    found$predictions <- as.list(unname(predict(model, new)))
    found$population <- as.list(unname(predict(model, new, re.form = NA)))
  }
  found
}
formula_model <- lmer(Reaction ~ Days + offset(20 * log(t)) + offset(Days) + (Days | Subject),
                      sleepstudy, start = c(0.8, 0, 0.2), control = tight)
argument_model <- lmer(Reaction ~ Days + (Days | Subject), sleepstudy, weights = t,
                       offset = 20 * log(t), REML = FALSE, start = c(0.6, 0, 0.15), control = tight)
text <- to_json(list(versions = versions_of("lme4"), formula = describe(formula_model, TRUE),
                     argument = describe(argument_model, FALSE)))
writeLines(text, "tests/reference/offset.json")

# Wald intervals and profiles of the parameters of residual structures, by nlme.
#     Rscript tests/reference/make_noise_intervals.R        (from the root of the repository)
#
# The intervals are those of `intervals` (Pinheiro & Bates 2000, section 5.3). nlme has no profiles:
# the likelihood at a correlation that is held fixed is one point of a profile.
suppressPackageStartupMessages({ library(lme4); library(nlme) })
source("tests/reference/common.R")

ovary <- as.data.frame(Ovary)
ovary$Order <- ave(seq_len(nrow(ovary)), ovary$Mare, FUN = seq_along)
waves <- follicles ~ sin(2 * pi * Time) + cos(2 * pi * Time)
precise <- list(gls = glsControl(tolerance = 1e-10, msTol = 1e-12, maxIter = 200, msMaxIter = 500),
                lme = lmeControl(tolerance = 1e-10, msTol = 1e-12, maxIter = 200, msMaxIter = 500))
fits <- list(
  ovary_lme = lme(waves, ovary, random = ~ 1 | Mare, correlation = corAR1(form = ~ Order | Mare),
                  method = "ML", control = precise$lme),
  ovary_gls = gls(waves, ovary, correlation = corAR1(form = ~ Order | Mare), method = "REML",
                  control = precise$gls),
  orthodont_strata = lme(distance ~ age * Sex, Orthodont, random = ~ 1 | Subject,
                         weights = varIdent(form = ~ 1 | Sex), method = "REML",
                         control = precise$lme),
  orthodont_symmetric = gls(distance ~ age * Sex, Orthodont,
                            correlation = corSymm(form = ~ 1 | Subject),
                            weights = varIdent(form = ~ 1 | age), method = "REML",
                            control = precise$gls),
  bodyweight_continuous = gls(weight ~ Time * Diet, BodyWeight,
                              correlation = corCAR1(form = ~ Time | Rat), method = "ML",
                              control = precise$gls)
)
ends <- function(table) list(lower = as.list(table[, "lower"]), upper = as.list(table[, "upper"]))
describe <- function(model) {
  found <- intervals(model, which = "var-cov")
  kept <- list(sigma = as.list(unname(unclass(found$sigma))))
  if (!is.null(found$corStruct)) kept$correlation <- ends(found$corStruct)
  if (!is.null(found$varStruct)) kept$variance <- ends(found$varStruct)
  if (!is.null(found$reStruct)) kept$deviation <- ends(found$reStruct[[1]])
  kept
}
held <- function(value) {
  -2 * as.numeric(logLik(lme(waves, ovary, random = ~ 1 | Mare, method = "ML",
                             correlation = corAR1(value, form = ~ Order | Mare, fixed = TRUE),
                             control = precise$lme)))
}
# The differences that nlme takes for a power are off by 3 %: second differences of its likelihood.
powered <- function(value = 0, fixed = NULL) {
  gls(distance ~ age * Sex, Orthodont, weights = varPower(value, form = ~ age, fixed = fixed),
      correlation = corCompSymm(form = ~ 1 | Subject), method = "ML", control = precise$gls)
}
power <- as.numeric(coef(powered()$modelStruct$varStruct))
deviance_of <- function(value) -2 * as.numeric(logLik(powered(value, value)))
step <- 0.02
bend <- (deviance_of(power + step) + deviance_of(power - step) - 2 * deviance_of(power)) / step^2
margin <- qnorm(0.975) * sqrt(2 / bend)
values <- c(0.3, 0.5, 0.7, 0.8)
profile <- list(value = as.list(values), criterion = as.list(sapply(values, held)))
text <- to_json(c(list(versions = versions_of("nlme")), lapply(fits, describe),
                  list(orthodont_power = list(power - margin, power + margin),
                       ovary_profile = profile)))
writeLines(text, "tests/reference/noise_intervals.json")

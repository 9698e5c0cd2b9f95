# Writes residual_structures.json: what nlme says about models with residual structures, and the
# data sets orthodont.csv, ovary.csv, bodyweight.csv and dialyzer.csv, which nlme ships.
#
#     Rscript tests/reference/make_residual_structures.R        (from the root of the repository)

suppressPackageStartupMessages({ library(lme4); library(nlme) })
source("tests/reference/common.R")
save <- function(data, name) {
  write.csv(as.data.frame(data), file.path("tests/reference", name), row.names = FALSE,
            quote = FALSE)
}
ovary <- as.data.frame(Ovary)
ovary$Order <- ave(seq_len(nrow(ovary)), ovary$Mare, FUN = seq_along)
save(ovary, "ovary.csv")
save(Orthodont, "orthodont.csv")
save(BodyWeight, "bodyweight.csv")
save(Dialyzer, "dialyzer.csv")

waves <- follicles ~ sin(2 * pi * Time) + cos(2 * pi * Time)
growth <- distance ~ age * Sex
flow <- rate ~ (pressure + I(pressure^2) + I(pressure^3)) * QB
precise <- list(gls = glsControl(tolerance = 1e-10, msTol = 1e-12, maxIter = 200, msMaxIter = 500),
                lme = lmeControl(tolerance = 1e-10, msTol = 1e-12, maxIter = 200, msMaxIter = 500))
models <- list(
  ovary_gls = function(m) gls(waves, ovary, correlation = corAR1(form = ~ Order | Mare),
                              method = m, control = precise$gls),
  ovary_lme = function(m) lme(waves, ovary, random = ~ 1 | Mare,
                              correlation = corAR1(form = ~ Order | Mare), method = m,
                              control = precise$lme),
  orthodont_symmetric = function(m) gls(growth, Orthodont,
                                        correlation = corSymm(form = ~ 1 | Subject),
                                        weights = varIdent(form = ~ 1 | age), method = m,
                                        control = precise$gls),
  orthodont_compound = function(m) gls(growth, Orthodont,
                                       correlation = corCompSymm(form = ~ 1 | Subject), method = m,
                                       control = precise$gls),
  orthodont_ar1 = function(m) gls(growth, Orthodont, correlation = corAR1(form = ~ 1 | Subject),
                                  weights = varIdent(form = ~ 1 | age), method = m,
                                  control = precise$gls),
  orthodont_strata = function(m) lme(growth, Orthodont, random = ~ 1 | Subject,
                                     weights = varIdent(form = ~ 1 | Sex), method = m,
                                     control = precise$lme),
  orthodont_power = function(m) gls(growth, Orthodont, weights = varPower(form = ~ age),
                                    method = m, control = precise$gls),
  bodyweight_continuous = function(m) gls(weight ~ Time * Diet, BodyWeight,
                                          correlation = corCAR1(form = ~ Time | Rat), method = m,
                                          control = precise$gls),
  dialyzer_power = function(m) gls(flow, Dialyzer, correlation = corAR1(form = ~ index | Subject),
                                   weights = varPower(form = ~ pressure), method = m,
                                   control = precise$gls)
)
describe <- function(model, method) {
  found <- list(criterion = -2 * as.numeric(logLik(model)),
                coef = as.list(unname(if (inherits(model, "lme")) nlme::fixef(model) else coef(model))),
                sigma = model$sigma,
                correlation = as.list(unname(coef(model$modelStruct$corStruct,
                                                  unconstrained = FALSE))))
  if (method == "REML") {
    covariance <- if (inherits(model, "lme")) model$varFix else model$varBeta
    found$std_error <- as.list(unname(sqrt(diag(covariance))))
  }
  found
}
found <- lapply(models, function(make) {
  list(REML = describe(make("REML"), "REML"), ML = describe(make("ML"), "ML"))
})
text <- to_json(c(list(versions = versions_of("nlme")), found))
writeLines(text, "tests/reference/residual_structures.json")

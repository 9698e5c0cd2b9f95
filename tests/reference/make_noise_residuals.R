# Writes noise_residuals.json: the residuals that nlme gives of models with residual structures.
#
#     Rscript tests/reference/make_noise_residuals.R        (from the root of the repository)

suppressPackageStartupMessages({ library(lme4); library(nlme) })
source("tests/reference/common.R")
read <- function(name) read.csv(file.path(data_dir, paste0(name, ".csv")))
ovary <- read("ovary")
orthodont <- read("orthodont")
dialyzer <- read("dialyzer")
# Three boys or girls each; the tests make the same.
orthodont$trio <- (seq_len(nrow(orthodont)) - 1) %/% 12
orthodont$Sex <- factor(orthodont$Sex, c("Male", "Female"))

waves <- follicles ~ sin(2 * pi * Time) + cos(2 * pi * Time)
growth <- distance ~ age * Sex
flow <- rate ~ (pressure + I(pressure^2) + I(pressure^3)) * QB
precise <- list(gls = glsControl(tolerance = 1e-10, msTol = 1e-14, maxIter = 200, msMaxIter = 500),
                lme = lmeControl(tolerance = 1e-10, msTol = 1e-14, maxIter = 200, msMaxIter = 500))
dialyzer$QB <- factor(dialyzer$QB)
models <- list(
  ovary_gls = gls(waves, ovary, correlation = corAR1(form = ~ Day | Mare),
                  control = precise$gls),
  ovary_lme = lme(waves, ovary, random = ~ 1 | Mare, correlation = corAR1(form = ~ Day | Mare),
                  control = precise$lme),
  orthodont_symmetric = gls(growth, orthodont, correlation = corSymm(form = ~ 1 | Subject),
                            weights = varIdent(form = ~ 1 | age), control = precise$gls),
  orthodont_compound = gls(growth, orthodont, correlation = corCompSymm(form = ~ 1 | Subject),
                           control = precise$gls),
  orthodont_strata = lme(growth, orthodont, random = ~ 1 | Subject,
                         weights = varIdent(form = ~ 1 | Sex), control = precise$lme),
  orthodont_nested = lme(growth, orthodont, random = ~ 1 | trio,
                         correlation = corAR1(form = ~ 1 | trio / Subject), control = precise$lme),
  dialyzer_power = gls(flow, dialyzer, correlation = corAR1(form = ~ index | Subject),
                       weights = varPower(form = ~ pressure), control = precise$gls)
)
describe <- function(model) {
  found <- lapply(c(conditional = "response", scaled = "pearson", normalized = "normalized"),
                  function(type) as.list(as.vector(resid(model, type = type))))
  if (inherits(model, "lme")) {
    found$marginal <- as.list(as.vector(resid(model, level = 0)))
  }
  found
}
text <- to_json(c(list(versions = versions_of("nlme")), lapply(models, describe)))
writeLines(text, "tests/reference/noise_residuals.json")

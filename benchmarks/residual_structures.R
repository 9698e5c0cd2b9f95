# Fits models with residual structures by nlme and glmmTMB; called by residual_structures.py.
#
#     Rscript residual_structures.R directory          CPU seconds and -2 log likelihoods, a line each

suppressPackageStartupMessages({ library(nlme); library(glmmTMB) })
folder <- commandArgs(trailingOnly = TRUE)[1]
tell <- function(name, peer, fit) {
  seconds <- system.time(model <- fit())
  cat(name, peer, sum(seconds[1:2]), format(-2 * as.numeric(logLik(model)), digits = 12), "\n")
}
trial <- read.csv(file.path(folder, "small_trial.csv"))
trial$visit <- factor(trial$visit)
mmrm <- function(data) gls(y ~ base + arm * visit, data,
                           correlation = corSymm(form = ~ as.integer(visit) | patient),
                           weights = varIdent(form = ~ 1 | visit),
                           control = glsControl(maxIter = 200, msMaxIter = 200))
# Without noise of its own glmmTMB's effects of visits are the whole covariance.
by_template <- function(data) glmmTMB(y ~ base + arm * visit + us(visit + 0 | patient), data,
                                      dispformula = ~ 0, REML = TRUE)
tell("small_trial", "nlme", function() mmrm(trial))
tell("small_trial", "glmmTMB", function() by_template(trial))
series <- read.csv(file.path(folder, "series.csv"))
tell("series", "nlme", function() lme(y ~ a + b + c, series, random = ~ 1 | g,
                                      correlation = corAR1(form = ~ t | g)))
tell("series", "glmmTMB", function() glmmTMB(y ~ a + b + c + (1 | g) + ar1(factor(t) + 0 | g),
                                             series, dispformula = ~ 0, REML = TRUE))
trial <- read.csv(file.path(folder, "trial.csv"))
trial$visit <- factor(trial$visit)
tell("trial", "glmmTMB", function() by_template(trial))
tell("trial", "nlme", function() mmrm(trial))

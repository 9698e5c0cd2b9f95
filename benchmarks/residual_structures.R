# Fits models with residual structures by nlme; called by residual_structures.py.
#
#     Rscript residual_structures.R directory          CPU seconds and -2 log likelihoods, a line each

suppressPackageStartupMessages(library(nlme))
folder <- commandArgs(trailingOnly = TRUE)[1]
tell <- function(name, fit) {
  seconds <- system.time(model <- fit())
  cat(name, sum(seconds[1:2]), format(-2 * as.numeric(logLik(model)), digits = 12), "\n")
}
trial <- read.csv(file.path(folder, "small_trial.csv"))
trial$visit <- factor(trial$visit)
mmrm <- function(data) gls(y ~ base + arm * visit, data,
                           correlation = corSymm(form = ~ as.integer(visit) | patient),
                           weights = varIdent(form = ~ 1 | visit),
                           control = glsControl(maxIter = 200, msMaxIter = 200))
tell("small_trial", function() mmrm(trial))
series <- read.csv(file.path(folder, "series.csv"))
tell("series", function() lme(y ~ a + b + c, series, random = ~ 1 | g,
                              correlation = corAR1(form = ~ t | g)))
trial <- read.csv(file.path(folder, "trial.csv"))
trial$visit <- factor(trial$visit)
tell("trial", function() mmrm(trial))

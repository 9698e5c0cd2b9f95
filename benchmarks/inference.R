# Times what lme4 and pbkrtest take for inference; prints one object of JSON. Fits are not counted.
#
#     Rscript inference.R                                    prints the versions
#     Rscript inference.R profile sleepstudy.csv [5]         confint(fit, method = "profile"), by ML
#     Rscript inference.R bootstrap sleepstudy.csv [3]       bootMer() with 1,000 refits, by REML
#     Rscript inference.R data slopes.csv                    writes the data of the next
#     Rscript inference.R kenward-roger slopes.csv [3]       vcovAdj() and KRmodcomp(), by REML
#     Rscript inference.R bootstrap-test sleepstudy.csv [1]  PBmodcomp() of a line and a parabola
#
# The last argument is the number of repetitions, of which the median counts. slopes.csv has the
# columns g, x and y: 2,000 rows, 200 levels with an intercept and a slope each.

for (name in c("lme4", "pbkrtest", "jsonlite")) {
  if (!requireNamespace(name, quietly = TRUE)) quit(status = 3)
}
suppressPackageStartupMessages({
  library(lme4)
  library(pbkrtest)
})

# After one call that is not counted, if there is to be more than one.
median_seconds <- function(repetitions, run) {
  if (repetitions > 1) run()
  seconds <- numeric(repetitions)
  for (i in seq_len(repetitions)) {
    gc()
    seconds[i] <- system.time(run())[["elapsed"]]
  }
  list(seconds = median(seconds), repetitions = repetitions)
}
report <- function(...) cat(jsonlite::toJSON(list(...), auto_unbox = TRUE, digits = NA), "\n")

fit_sleepstudy <- function(path, reml) {
  frame <- read.csv(path)
  frame$Subject <- factor(frame$Subject)
  assign("frame", frame, globalenv())
  lmer(Reaction ~ Days + (1 + Days | Subject), frame, REML = reml)
}

# Boundary fits and steps that end early warn and are counted like the others.
profile_intervals <- function(path, repetitions) {
  fit <- fit_sleepstudy(path, FALSE)
  table <- NULL
  times <- median_seconds(repetitions, function() {
    table <<- suppressWarnings(suppressMessages(
      confint(fit, method = "profile", oldNames = FALSE, quiet = TRUE)))
  })
  report(task = "profile", seconds = times$seconds, repetitions = repetitions,
         parameters = rownames(table), lower = table[, 1], upper = table[, 2])
}

bootstrap <- function(path, repetitions) {
  fit <- fit_sleepstudy(path, TRUE)
  statistics <- function(fit) c(fixef(fit), getME(fit, "theta"), sigma = sigma(fit))
  result <- NULL
  times <- median_seconds(repetitions, function() {
    result <<- suppressWarnings(suppressMessages(bootMer(fit, statistics, nsim = 1000, seed = 1)))
  })
  report(task = "bootstrap", seconds = times$seconds, repetitions = repetitions, refits = 1000,
         statistics = names(result$t0), standard_errors = unname(apply(result$t, 2, sd)))
}

# One process: pbkrtest would fork as many as there are cores.
bootstrap_test <- function(path, repetitions) {
  line <- fit_sleepstudy(path, FALSE)
  curve <- lmer(Reaction ~ poly(Days, 2) + (1 + Days | Subject), frame, REML = FALSE)
  test <- NULL
  times <- median_seconds(repetitions, function() {
    set.seed(1)
    test <<- suppressWarnings(suppressMessages(PBmodcomp(curve, line, nsim = 1000, cl = 1)))$test
  })
  report(task = "bootstrap-test", seconds = times$seconds, repetitions = repetitions,
         statistic = test["LRT", "stat"], p = test["PBtest", "p.value"])
}

write_slopes <- function(path) {
  set.seed(1)
  g <- rep(1:200, each = 10)
  x <- round(rnorm(2000), 3)
  b <- matrix(rnorm(400), 200) %*% chol(matrix(c(1, 0.3, 0.3, 0.5), 2))
  y <- round(2 + 0.5 * x + b[g, 1] + b[g, 2] * x + rnorm(2000), 4)
  write.csv(data.frame(g = g, x = x, y = y), path, quote = FALSE, row.names = FALSE)
}

kenward_roger <- function(path, repetitions) {
  frame <- read.csv(path)
  frame$g <- factor(frame$g)
  fit <- lmer(y ~ x + (1 + x | g), frame)
  adjusted <- NULL
  covariance <- median_seconds(repetitions, function() adjusted <<- vcovAdj(fit))
  # KRmodcomp() computes the adjusted covariance itself: this is the whole test.
  test <- NULL
  slope <- matrix(c(0, 1), 1)
  whole <- median_seconds(repetitions, function() test <<- KRmodcomp(fit, slope)$test)
  report(task = "kenward-roger", vcov_adj_seconds = covariance$seconds,
         test_seconds = whole$seconds, repetitions = repetitions,
         std_errors = sqrt(diag(as.matrix(adjusted))), f = test["Ftest", "stat"],
         df = test["Ftest", "ddf"])
}

arguments <- commandArgs(trailingOnly = TRUE)
tasks <- list(profile = profile_intervals, bootstrap = bootstrap, "kenward-roger" = kenward_roger,
              "bootstrap-test" = bootstrap_test)
usual_repetitions <- c(profile = 5, bootstrap = 3, "kenward-roger" = 3, "bootstrap-test" = 1)
if (length(arguments) == 0) {
  cat(R.version.string, "\n", sep = "")
  for (name in c("lme4", "pbkrtest", "Matrix")) cat(name, format(packageVersion(name)), "\n")
  cat("BLAS ", extSoftVersion()["BLAS"], "\n", sep = "")
} else if (arguments[1] == "data") {
  write_slopes(arguments[2])
} else {
  task <- match.arg(arguments[1], names(tasks))
  repetitions <- if (length(arguments) > 2) as.integer(arguments[3]) else usual_repetitions[[task]]
  tasks[[task]](arguments[2], repetitions)
}

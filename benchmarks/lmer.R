# Fits a model by lme4 again and again; other benchmarks call it.
#
#     Rscript lmer.R data.csv formula repeats [matrix.csv]
#
# Prints a line with elapsed seconds and the REML criterion for every fit. "each" in place of repeats
# fits once for every value of the column `model` and prints CPU seconds. Columns of the second file
# are those of a matrix X of the formula. Columns whose names start with g are grouping factors.

if (!requireNamespace("lme4", quietly = TRUE)) quit(status = 3)
suppressPackageStartupMessages(library(lme4))
arguments <- commandArgs(trailingOnly = TRUE)
data <- read.csv(arguments[1])
for (name in grep("^g", names(data), value = TRUE)) data[[name]] <- factor(data[[name]])
if (length(arguments) > 3) data$X <- as.matrix(read.csv(arguments[4]))
formula <- as.formula(arguments[2])

fit <- function(rows, kind) {
  seconds <- system.time(model <- suppressWarnings(suppressMessages(lmer(formula, rows))))
  cat(format(c(sum(seconds[kind]), REMLcrit(model)), digits = 15), "\n")
}

if (arguments[3] == "each") {
  for (rows in split(data, data$model)) {
    tryCatch(fit(rows, c("user.self", "sys.self")), error = function(e) cat("NA NA\n"))
  }
} else {
  for (turn in seq_len(as.integer(arguments[3]))) fit(data, "elapsed")
}

# Fits one model by lme4 and prints what the fit took; several_factors.py calls it.
#
#     Rscript several_factors.R                                   prints the versions
#     Rscript several_factors.R folder formula TRUE [FALSE]       fits
#
# The folder holds the columns as bytes: <name>.float64, or <name>.int32 with the codes of a factor,
# from 0. Each further argument is a fit, with lme4's default check of the derivatives at the optimum
# (TRUE) or without (FALSE). Its line has the seconds of the call of lmer alone, the criterion and
# the number of evaluations.

if (!requireNamespace("lme4", quietly = TRUE)) quit(status = 3)
suppressPackageStartupMessages(library(lme4))

read_column <- function(path) {
  if (endsWith(path, ".float64")) return(readBin(path, "double", file.size(path) / 8))
  codes <- readBin(path, "integer", file.size(path) / 4, size = 4)
  levels <- as.character(seq_len(max(codes) + 1L))
  structure(codes + 1L, levels = levels, class = "factor")
}

read_frame <- function(folder) {
  paths <- list.files(folder, full.names = TRUE)
  columns <- lapply(paths, read_column)
  names(columns) <- tools::file_path_sans_ext(basename(paths))
  as.data.frame(columns)
}

arguments <- commandArgs(trailingOnly = TRUE)
if (length(arguments) == 0) {
  cat(R.version.string, "\n", sep = "")
  for (name in c("lme4", "Matrix")) cat(name, " ", format(packageVersion(name)), "\n", sep = "")
  cat("BLAS ", extSoftVersion()["BLAS"], "\n", sep = "")
} else {
  frame <- read_frame(arguments[1])
  for (derivatives in as.logical(arguments[-(1:2)])) {
    gc()
    control <- lmerControl(calc.derivs = derivatives)
    seconds <- system.time(fit <- lmer(as.formula(arguments[2]), frame, control = control))
    numbers <- c(seconds[["elapsed"]], REMLcrit(fit), fit@optinfo$feval)
    cat(format(numbers, digits = 15), "\n")
  }
}

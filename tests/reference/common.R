# What the scripts that write reference values share: lme4's deviance function, the search for its
# optimum, JSON, and data of the gallery. They source it from the root of the repository.

data_dir <- "src/mixedlearn/datasets/data"
quiet <- lmerControl(calc.derivs = FALSE, check.scaleX = "ignore", check.conv.singular = "ignore",
                     check.conv.grad = "ignore", check.conv.hess = "ignore")

terms_of <- function(intercept, columns) paste(c(as.integer(intercept), columns), collapse = " + ")

## The optimum --------------------------------------------------------------------------------

deviance_function <- function(formula, frame, reml) {
  parsed <- lFormula(as.formula(formula), frame, weights = .w, REML = reml, control = quiet)
  list(parsed = parsed, evaluate = do.call(mkLmerDevfun, c(parsed, list(control = quiet))))
}

# theta is the lower triangle of Lambda by columns; with covariance = "diagonal" only its diagonal
# is free.
free_entries <- function(q, covariance) {
  square <- matrix(TRUE, q, q)
  if (covariance == "diagonal") diag(q)[lower.tri(square, diag = TRUE)] == 1
  else rep(TRUE, q * (q + 1) / 2)
}
to_lambda <- function(theta, q) {
  Lambda <- matrix(0, q, q)
  Lambda[lower.tri(Lambda, diag = TRUE)] <- theta
  Lambda
}

minimise <- function(objective, n_free, on_diagonal, starts = NULL, repetitions = 2) {
  lower <- ifelse(on_diagonal, 0, -Inf)
  if (is.null(starts)) {
    starts <- c(list(as.numeric(on_diagonal), 0.1 * on_diagonal, 3 * on_diagonal),
                replicate(5, abs(rnorm(n_free)), simplify = FALSE))
  }
  best <- list(par = starts[[1]], value = objective(starts[[1]]))
  try_point <- function(par) {
    value <- objective(par)
    if (is.finite(value) && value < best$value) best <<- list(par = par, value = value)
    best$par
  }
  run_all <- function(start) {
    for (repetition in seq_len(repetitions)) {
      start <- nlminb(start, objective, lower = lower,
                      control = list(rel.tol = 1e-15, eval.max = 2000, iter.max = 1000))$par
      try_point(start)
      start <- nloptwrap(start, objective, lower, rep(Inf, n_free),
                         control = list(xtol_abs = 1e-12, ftol_abs = 1e-13, maxeval = 5000))$par
      try_point(start)
      if (n_free > 1) {
        start <- Nelder_Mead(objective, start, lower, rep(Inf, n_free),
                             control = list(maxfun = 10000, warnOnly = TRUE, verbose = 0))$par
        try_point(start)
      }
      start <- minqa::bobyqa(start, objective, lower, rep(Inf, n_free),
                             control = list(rhobeg = 0.02, rhoend = 1e-10, maxfun = 10000))$par
      try_point(start)
    }
  }
  for (start in starts) suppressWarnings(run_all(start))

  # A variance of zero is zero: the optimisers only come close.
  for (a in which(on_diagonal & abs(best$par) < 1e-4)) {
    at_zero <- replace(best$par, a, 0)
    value <- objective(at_zero)
    if (value <= best$value + 1e-9) best <- list(par = at_zero, value = value)
  }

  inner <- which(!(on_diagonal & best$par == 0))
  gradient <- 0
  if (length(inner) > 0) {
    along <- function(x) objective(replace(best$par, inner, x))
    x <- best$par[inner]
    wide <- list(d = 0.02, r = 6, eps = 0.01)
    for (iteration in 1:8) {
      gradient <- numDeriv::grad(along, x, method.args = wide)
      hessian <- numDeriv::hessian(along, x, method.args = list(d = 0.02, r = 4, eps = 0.01))
      step <- solve(hessian, gradient)
      x <- x - step
      if (max(abs(step)) < 1e-11) break
    }
    rounding <- max(1e-9, 1e-13 * abs(best$value))
    stopifnot(along(x) < best$value + rounding, all(eigen(hessian)$values > 0),
              max(abs(step)) < 1e-7)
    best <- list(par = replace(best$par, inner, x), value = along(x))
  }
  # Where an entry is zero the criterion is even in it, or has its boundary: it must not fall.
  for (a in which(on_diagonal & best$par == 0)) {
    stopifnot(objective(replace(best$par, a, 0.01)) > best$value)
  }
  c(best, list(gradient = max(abs(gradient))))
}

criterion_of <- function(fit, reml) -2 * as.numeric(logLik(fit, REML = reml))

## JSON ------------------------------------------------------------------------------------------

# A matrix as a list of its rows.
rows <- function(A) lapply(seq_len(nrow(A)), function(i) as.list(unname(A[i, ])))

# Vectors of length one are scalars, unnamed lists are arrays. Doubles get the digits they need to
# be read back exactly.
to_json <- function(x) {
  if (is.null(x)) return("null")
  if (is.list(x)) {
    parts <- vapply(x, to_json, "")
    if (is.null(names(x))) return(paste0("[", paste(parts, collapse = ", "), "]"))
    return(paste0("{", paste0('"', names(x), '": ', parts, collapse = ", "), "}"))
  }
  stopifnot(length(x) == 1, !is.na(x))
  if (is.logical(x)) return(if (x) "true" else "false")
  if (is.character(x)) return(paste0('"', gsub('(["\\\\])', "\\\\\\1", x), '"'))
  short <- sprintf("%.15g", x)
  if (as.numeric(short) == x) short else sprintf("%.17g", x)
}

one_line_per_key <- function(entry) {
  lines <- paste0('   "', names(entry), '": ', vapply(entry, to_json, ""))
  paste0("  {\n", paste(lines, collapse = ",\n"), "\n  }")
}

versions_of <- function(...) {
  packages <- c(...)
  c(list(R = paste(R.version$major, R.version$minor, sep = ".")),
    lapply(setNames(packages, packages), function(p) as.character(packageVersion(p))))
}

## Gallery ---------------------------------------------------------------------------------------

# A table that a page of the gallery generates, by the name of its variable. The page is run by the
# Python that the environment variable PYTHON names, or by python3.
generated <- function(page, variable) {
  file <- tempfile(fileext = ".csv")
  code <- sprintf("import runpy; runpy.run_path('examples/%s.py')['%s'].to_csv('%s', index=False)",
                  page, variable, file)
  stopifnot(system2(Sys.getenv("PYTHON", "python3"), c("-c", shQuote(code)), stdout = FALSE) == 0)
  read.csv(file, stringsAsFactors = TRUE)
}

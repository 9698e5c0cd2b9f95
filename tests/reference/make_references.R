# Writes one_factor.json: what lme4 says about linear mixed models with one grouping factor.
#
#     Rscript tests/reference/make_references.R      (from the root of the repository)
#
# lme4's own optimisers stop early on ill-scaled covariates (Sitka), and nowhere closer to the
# optimum than the root of the machine precision. So the optimum is looked for here, with lme4's
# deviance function: several optimisers from several starts, in a basis of the random effects whose
# pooled cross-products are n I, then Newton steps with Richardson derivatives. lme4 evaluates the
# model at that theta in the original basis, and every number written comes from that fit. Three
# things are held against it, or the script stops: dense matrix algebra on the n x n covariance and
# nlme must agree, and lme4's default fit must not be better.

suppressPackageStartupMessages({
  library(lme4)
  library(nlme)
})
source("tests/reference/common.R")
set.seed(20)

## The models ---------------------------------------------------------------------------------

model <- function(id, data_set, response, groups, fixed = character(), slopes = character(),
                  fit_intercept = TRUE, random_intercept = TRUE, covariance = "full",
                  weighted = FALSE, derived = list()) {
  as.list(environment())
}

models <- list(
  model("dietox-intercept", "dietox", "Weight", "Pig", "Time"),
  model("dietox-slope", "dietox", "Weight", "Pig", "Time", "Time"),
  model("dietox-slope-diagonal", "dietox", "Weight", "Pig", "Time", "Time",
        covariance = "diagonal"),
  model("dietox-quadratic", "dietox", "Weight", "Pig", c("Time", "Time2"), c("Time", "Time2"),
        derived = list(Time2 = "Time ** 2")),
  model("sitka-intercept", "sitka", "size", "tree", "Time"),
  model("sitka-slope", "sitka", "size", "tree", "Time", "Time"),
  model("dyestuff", "dyestuff", "Yield", "Batch"),
  model("dyestuff2", "dyestuff2", "Yield", "Batch"),
  model("sleepstudy-intercept", "sleepstudy", "Reaction", "Subject", "Days"),
  model("sleepstudy-slope", "sleepstudy", "Reaction", "Subject", "Days", "Days"),
  model("sleepstudy-slope-diagonal", "sleepstudy", "Reaction", "Subject", "Days", "Days",
        covariance = "diagonal"),
  model("sleepstudy-no-fixed-intercept", "sleepstudy", "Reaction", "Subject", "Days",
        fit_intercept = FALSE),
  model("sleepstudy-no-random-intercept", "sleepstudy", "Reaction", "Subject", "Days", "Days",
        random_intercept = FALSE),
  model("sleepstudy-random-slope-only", "sleepstudy", "Reaction", "Subject", character(), "Days",
        random_intercept = FALSE),
  model("sleepstudy-slope-without-fixed", "sleepstudy", "Reaction", "Subject", character(), "Days"),
  model("sleepstudy-intercept-weighted", "sleepstudy", "Reaction", "Subject", "Days",
        weighted = TRUE),
  model("sleepstudy-slope-weighted", "sleepstudy", "Reaction", "Subject", "Days", "Days",
        weighted = TRUE),
  model("cake-intercept", "cake", "angle", "replicate", "temp")
)

read_data <- function(m) {
  frame <- read.csv(file.path(data_dir, paste0(m$data_set, ".csv")), stringsAsFactors = FALSE)
  for (name in names(m$derived)) {
    frame[[name]] <- eval(parse(text = sub("**", "^", m$derived[[name]], fixed = TRUE)), frame)
  }
  # The C collation, so that the order of the levels does not depend on the locale.
  labels <- frame[[m$groups]]
  frame[[m$groups]] <- factor(labels, levels = sort(unique(labels), method = "radix"))
  n <- nrow(frame)
  frame$.w <- if (m$weighted) 1 + seq_len(n) %% 3 else rep(1, n)
  frame
}

fixed_part <- function(m) paste(m$response, "~", terms_of(m$fit_intercept, m$fixed))
random_part <- function(m, bar = "|") {
  sprintf("(%s %s %s)", terms_of(m$random_intercept, m$slopes), bar, m$groups)
}
lme4_formula <- function(m) {
  paste(fixed_part(m), "+", random_part(m, if (m$covariance == "diagonal") "||" else "|"))
}

## The optimum --------------------------------------------------------------------------------

# The basis Z T with (Z T)'(Z T) = n I; for a diagonal covariance only the lengths are made equal.
basis_of <- function(m, frame) {
  Z <- cbind(1, as.matrix(frame[m$slopes]))
  if (!m$random_intercept) Z <- Z[, -1, drop = FALSE]
  gram <- crossprod(Z) / nrow(Z)
  if (m$covariance == "diagonal") gram <- diag(diag(gram), nrow(gram))
  T <- unname(solve(chol(gram)))
  scaled <- Z %*% T
  colnames(scaled) <- paste0(".z", seq_len(ncol(Z)))
  list(Z = unname(Z), T = T, scaled = scaled)
}

find_theta <- function(m, frame, reml) {
  basis <- basis_of(m, frame)
  q <- ncol(basis$Z)
  formula <- sprintf("%s + (%s | %s)", fixed_part(m), terms_of(FALSE, colnames(basis$scaled)),
                     m$groups)
  evaluate <- deviance_function(formula, cbind(frame, basis$scaled), reml)$evaluate
  free <- free_entries(q, m$covariance)
  fill <- function(par) replace(numeric(length(free)), free, par)
  on_diagonal <- (diag(q)[lower.tri(diag(q), diag = TRUE)] == 1)[free]
  best <- minimise(function(par) evaluate(fill(par)), sum(free), on_diagonal)

  # Back: Lambda = T Lambda_scaled, made lower triangular by a QR decomposition of its transpose.
  Lambda <- t(qr.R(qr(t(basis$T %*% to_lambda(fill(best$par), q)), tol = 0)))
  Lambda <- Lambda %*% diag(ifelse(diag(Lambda) < 0, -1, 1), q)
  theta <- Lambda[lower.tri(Lambda, diag = TRUE)]
  theta[!free] <- 0
  list(theta = theta, value = best$value, gradient = best$gradient, free = free)
}

## Checks against other programs ----------------------------------------------------------------

dense_check <- function(m, frame, reml, fit, D, criterion) {
  X <- getME(fit, "X")
  y <- getME(fit, "y")
  Z <- basis_of(m, frame)$Z
  labels <- frame[[m$groups]]
  V <- diag(1 / frame$.w) + outer(as.integer(labels), as.integer(labels), "==") * (Z %*% D %*% t(Z))
  R <- chol(V)
  half <- function(A) backsolve(R, A, transpose = TRUE)
  H <- crossprod(half(X))
  beta <- solve(H, crossprod(half(X), half(y)))
  residual <- y - X %*% beta
  r2 <- sum(half(residual)^2)
  df <- length(y) - reml * ncol(X)
  value <- 2 * sum(log(diag(R))) + reml * as.numeric(determinant(H)$modulus) +
    df * (1 + log(2 * pi * r2 / df))
  b <- t(sapply(levels(labels), function(level) {
    inside <- as.numeric(labels == level)
    D %*% crossprod(Z * inside, backsolve(R, half(residual)))
  }))
  if (ncol(Z) == 1) b <- t(b)
  stopifnot(
    abs(value - criterion) < 1e-8,
    all.equal(as.numeric(beta), as.numeric(fixef(fit)), tolerance = 1e-9),
    all.equal(r2 / df, sigma(fit)^2, tolerance = 1e-9),
    all.equal(unname(as.matrix(vcov(fit))), unname(solve(H) * r2 / df), tolerance = 1e-7),
    max(abs(b - as.matrix(ranef(fit)[[1]]))) < 1e-7 * (1 + max(abs(b)))
  )
}

default_criterion <- function(m, frame, reml) {
  suppressWarnings(suppressMessages(criterion_of(
    lmer(as.formula(lme4_formula(m)), frame, weights = .w, REML = reml), reml)))
}

# In the same basis, as nlme does not converge on Sitka in the basis of the covariates.
nlme_criterion <- function(m, frame, reml) {
  scaled <- basis_of(m, frame)$scaled
  frame <- cbind(frame, scaled)
  within <- as.formula(paste("~", terms_of(FALSE, colnames(scaled))))
  pattern <- if (m$covariance == "diagonal") pdDiag(within) else pdSymm(within)
  frame$.v <- 1 / frame$.w
  fit <- do.call(lme, list(
    fixed = as.formula(fixed_part(m)), data = frame, random = setNames(list(pattern), m$groups),
    weights = varFixed(~.v), method = if (reml) "REML" else "ML",
    control = lmeControl(maxIter = 500, msMaxIter = 500, tolerance = 1e-10, msTol = 1e-12,
                         niterEM = 100)
  ))
  criterion_of(fit, reml)
}

## One entry -------------------------------------------------------------------------------------

reference <- function(m, reml) {
  frame <- read_data(m)
  optimum <- find_theta(m, frame, reml)
  # The full structure, also for a diagonal covariance: lme4 then reports the conditional
  # covariances of one level's effects as a whole, not one block for each "||" term.
  d <- deviance_function(paste(fixed_part(m), "+", random_part(m)), frame, reml)
  value <- d$evaluate(optimum$theta)
  stopifnot(abs(value - optimum$value) < 1e-7)
  fit <- mkMerMod(environment(d$evaluate),
                  list(par = optimum$theta, fval = value, feval = 1, conv = 0, message = ""),
                  d$parsed$reTrms, fr = d$parsed$fr)
  criterion <- criterion_of(fit, reml)
  stopifnot(abs(criterion - value) < 1e-9)

  b <- ranef(fit, condVar = TRUE)[[m$groups]]
  q <- ncol(b)
  D <- tcrossprod(to_lambda(optimum$theta, q))
  dense_check(m, frame, reml, fit, D, criterion)
  by_default <- default_criterion(m, frame, reml)
  by_nlme <- nlme_criterion(m, frame, reml)
  stopifnot(criterion <= by_default + 1e-8, abs(criterion - by_nlme) < 1e-7)

  post <- attr(b, "postVar")
  first <- 1:5
  id <- paste0(m$id, if (reml) "-reml" else "-ml")
  message(sprintf("%-42s %.8f  lme4's default %+.1e  nlme %+.1e  gradient %.0e", id, criterion,
                  by_default - criterion, by_nlme - criterion, optimum$gradient))
  components <- c(sigma(fit)^2 * D[lower.tri(D, diag = TRUE)], sigma(fit)^2)
  message("   variance components, noise last: ", paste(signif(components, 8), collapse = " "))
  list(
    id = id,
    data_set = m$data_set,
    target = m$response,
    formula = lme4_formula(m),
    derived_columns = if (length(m$derived) > 0) m$derived,
    groups = m$groups,
    fixed_effects = as.list(m$fixed),
    fit_intercept = m$fit_intercept,
    random_intercept = m$random_intercept,
    random_slopes = as.list(m$slopes),
    covariance = m$covariance,
    reml = reml,
    weights = if (m$weighted) as.list(frame$.w),
    program = "lme4",
    n_rows = nrow(frame),
    n_levels = nrow(b),
    criterion = criterion,
    log_likelihood = -criterion / 2,
    lme4_default_criterion = by_default,
    nlme_criterion = by_nlme,
    max_abs_gradient = optimum$gradient,
    theta = as.list(optimum$theta[optimum$free]),
    noise_variance = sigma(fit)^2,
    coef_names = as.list(names(fixef(fit))),
    coef = as.list(unname(fixef(fit))),
    coef_covariance = rows(as.matrix(vcov(fit))),
    effect_names = as.list(colnames(b)),
    random_covariance = rows(sigma(fit)^2 * D),
    levels = as.list(rownames(b)),
    random_effects = rows(as.matrix(b)),
    random_effects_covariances = lapply(seq_len(nrow(b)), function(i) {
      rows(matrix(post[, , i], q))
    }),
    population_predictions = as.list(unname(
      drop(getME(fit, "X")[first, , drop = FALSE] %*% fixef(fit)))),
    conditional_predictions = as.list(unname(fitted(fit)[first]))
  )
}

entries <- unlist(lapply(models, function(m) list(reference(m, TRUE), reference(m, FALSE))),
                  recursive = FALSE)
versions <- versions_of("lme4", "nlme")
writeLines(c("{", paste0(' "versions": ', to_json(versions), ","), ' "models": [',
             paste(vapply(entries, one_line_per_key, ""), collapse = ",\n"), " ]", "}"),
           "tests/reference/one_factor.json")

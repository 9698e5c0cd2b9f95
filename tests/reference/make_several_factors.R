# Writes several_factors.json: what lme4 says about linear mixed models with several grouping
# factors.
#
#     Rscript tests/reference/make_several_factors.R   (from the root of the repository)
#
# As in make_references.R the optimum is looked for with lme4's deviance function: several
# optimisers from several starts, in bases of the random effects whose pooled cross-products are
# n I, then Newton steps with Richardson derivatives. lme4 evaluates the model at that theta in the
# original bases, and every number written comes from that fit. Three things are held against it, or
# the script stops: dense matrix algebra (on the n x n covariance; for insteval on the mixed model
# equations) must agree, lme4's default fit must not be better, and published criteria must agree.

suppressPackageStartupMessages(library(lme4))
source("tests/reference/common.R")

## Data made up here ----------------------------------------------------------------------------

# Rounded, and the fits see the rounded numbers, so that the file holds exactly what R had.
draws <- function(n, sds, correlation = 0) {
  root <- chol(outer(sds, sds) * (correlation + (1 - correlation) * diag(length(sds))))
  matrix(rnorm(n * length(sds)), n) %*% root
}

# Two factors crossed at random, levels of very different size, some cells empty.
crossed_data <- function() {
  set.seed(3)
  n <- 240
  a <- sample(15, n, replace = TRUE, prob = 3 + 1:15)
  b <- sample(10, n, replace = TRUE, prob = c(1, 1, 2, 2, 2, 3, 3, 4, 5, 6))
  x <- round(runif(n, 2, 12), 1)
  z <- round(rnorm(n), 2)
  w <- sample(c(0.5, 1, 2, 4), n, replace = TRUE)
  of_a <- draws(15, c(2, 0.4), -0.5)
  of_b <- draws(10, c(1.5, 0.3, 0.8), 0.4)
  of_cells <- rnorm(150, sd = 0.9)
  fixed <- 10 + 0.7 * x - 0.5 * z
  noise <- rnorm(n)
  y <- fixed + of_a[a, 1] + of_a[a, 2] * x + of_b[b, 1] + of_b[b, 2] * x + of_b[b, 3] * z + noise
  y_cells <- fixed + of_a[a, 1] + of_b[b, 1] + of_cells[10 * (a - 1) + b] + noise
  y_weighted <- fixed + of_a[a, 1] + of_a[a, 2] * x + of_b[b, 2] * x + noise / sqrt(w)
  # The means of b's levels vary less than noise alone would let them: a variance of zero.
  without_b <- fixed + of_a[a, 1] + of_a[a, 2] * x + noise
  y_zero <- without_b - 0.8 * ave(noise, b)
  # Intercepts and slopes of a on one line, around which they vary less than noise alone would let
  # them: a correlation of one.
  lines <- ave(seq_len(n), a, FUN = function(i) fitted(lm(noise[i] ~ x[i])))
  y_line <- fixed + of_a[a, 1] * (1 + 0.15 * x) + of_b[b, 1] + noise - 0.8 * lines
  of_b <- draws(10, c(2, 0.6, 1.5), 0.2)
  y_strong <- fixed + of_a[a, 1] + of_a[a, 2] * x + of_b[b, 1] + of_b[b, 2] * x +
    of_b[b, 3] * z + noise
  list(a = sprintf("a%02d", a), b = 100 + b, x = x, z = z, w = w, y = round(y, 2),
       y_cells = round(y_cells, 2), y_weighted = round(y_weighted, 2), y_zero = round(y_zero, 2),
       y_line = round(y_line, 2), y_strong = round(y_strong, 2))
}

# Classes within schools, the labels p, q, ... used again in every school.
nested_data <- function() {
  set.seed(4)
  n_classes <- sample(2:5, 14, replace = TRUE)
  school <- rep(1:14, n_classes)
  class <- sequence(n_classes)
  n_pupils <- sample(2:9, length(school), replace = TRUE)
  row <- rep(seq_along(school), n_pupils)
  n <- length(row)
  x <- round(rnorm(n, 20, 4), 1)
  of_schools <- draws(14, c(3, 0.35), 0.3)
  of_classes <- draws(length(school), c(1.5, 0.25))
  centred <- x - 20
  y <- 50 + 0.8 * x + of_schools[school[row], 1] + of_schools[school[row], 2] * centred +
    of_classes[row, 1] + of_classes[row, 2] * centred + rnorm(n, sd = 1.2)
  list(school = school[row], class = letters[15 + class[row]], x = x, centred = round(centred, 1),
       y = round(y, 2))
}

made_up <- list(crossed = crossed_data(), nested = nested_data())

## The models -----------------------------------------------------------------------------------

# groups: character vectors, of several columns for an interaction. The other arguments by factor
# name only where they are not the default.
model <- function(id, source, response, groups, fixed = character(), slopes = list(),
                  without_intercept = character(), diagonal = character(), weights = NULL,
                  derived = list(), fixed_formula = NULL, shown = Inf, known = c(NA, NA)) {
  groups <- lapply(groups, function(columns) columns)
  factors <- vapply(groups, paste, "", collapse = ":")
  by_factor <- function(value) setNames(lapply(factors, value), factors)
  list(
    id = id, source = source, response = response, groups = groups, factors = factors,
    fixed = fixed, weights = weights, derived = derived, shown = shown, known = known,
    slopes = by_factor(function(f) as.character(slopes[[f]])),
    intercept = by_factor(function(f) !(f %in% without_intercept)),
    covariance = by_factor(function(f) if (f %in% diagonal) "diagonal" else "full"),
    fixed_formula = if (is.null(fixed_formula)) terms_of(TRUE, fixed) else fixed_formula
  )
}

# Treatment coding of recipe * temperature. The expressions are R and pandas at once.
cake_columns <- function() {
  recipes <- c("B", "C")
  temperatures <- seq(185, 225, 10)
  pairs <- expand.grid(t = temperatures, r = recipes, stringsAsFactors = FALSE)
  c(setNames(as.list(sprintf("(recipe == '%s') * 1.0", recipes)), paste0("recipe", recipes)),
    setNames(as.list(sprintf("(temperature == '%d') * 1.0", as.integer(temperatures))),
             paste0("temperature", temperatures)),
    setNames(as.list(sprintf("recipe%s * temperature%s", pairs$r, pairs$t)),
             sprintf("recipe%s_temperature%s", pairs$r, pairs$t)))
}
cake <- function(id, groups, ...) {
  model(id, "cake", "angle", groups, names(cake_columns()), derived = cake_columns(),
        fixed_formula = "recipe * temperature", ...)
}

# known: the published criterion by REML and by ML.
models <- list(
  model("penicillin", "penicillin", "diameter", list("plate", "sample"), known = c(330.86059, NA)),
  model("pastes", "pastes", "strength", list("batch", c("batch", "cask")),
        known = c(246.99075, NA)),
  cake("cake", list(c("recipe", "replicate")), known = c(1633.24618, NA)),
  cake("cake-replicate", list(c("recipe", "replicate"), "replicate")),
  model("insteval", "insteval", "y", list("s", "d", "dept"), "service", shown = 60,
        known = c(237733.834128, 237721.768776)),
  model("crossed-slopes", "crossed", "y_strong", list("a", "b"), c("x", "z"),
        slopes = list(a = "x", b = c("x", "z"))),
  model("crossed-slopes-rank-two", "crossed", "y", list("a", "b"), c("x", "z"),
        slopes = list(a = "x", b = c("x", "z"))),
  model("crossed-slopes-diagonal", "crossed", "y", list("a", "b"), c("x", "z"),
        slopes = list(a = "x", b = c("x", "z")), diagonal = c("a", "b")),
  model("crossed-slopes-mixed", "crossed", "y_strong", list("b", "a"), c("x", "z"),
        slopes = list(a = "x", b = "x"), diagonal = "a"),
  model("crossed-cells", "crossed", "y_cells", list("a", "b", c("a", "b")), c("x", "z")),
  model("crossed-weighted", "crossed", "y_weighted", list("a", "b"), c("x", "z"),
        slopes = list(a = "x", b = "x"), without_intercept = "b", weights = "w"),
  model("crossed-zero-variance", "crossed", "y_zero", list("a", "b"), c("x", "z"),
        slopes = list(a = "x")),
  model("crossed-perfect-correlation", "crossed", "y_line", list("a", "b"), c("x", "z"),
        slopes = list(a = "x")),
  model("nested-slopes", "nested", "y", list("school", c("school", "class")), "x",
        slopes = list(school = "centred", "school:class" = "centred"), diagonal = "school:class"),
  model("nested-slopes-far", "nested", "y", list("school", c("school", "class")), "x",
        slopes = list(school = "x"))
)

stored_file <- function(source) {
  files <- file.path(data_dir, paste0(source, c(".csv", ".csv.gz")))
  files[file.exists(files)]
}
is_made_up <- function(m) m$source %in% names(made_up)

read_data <- function(m) {
  frame <- if (is_made_up(m)) as.data.frame(made_up[[m$source]])
           else read.csv(stored_file(m$source), stringsAsFactors = FALSE)
  for (name in names(m$derived)) frame[[name]] <- eval(parse(text = m$derived[[name]]), frame)
  # The C collation, so that the order of the levels does not depend on the locale.
  for (name in unique(c(unlist(m$groups), if (m$source == "cake") "temperature"))) {
    frame[[name]] <- factor(frame[[name]], levels = sort(unique(frame[[name]]), method = "radix"))
  }
  frame$.w <- if (is.null(m$weights)) rep(1, nrow(frame)) else frame[[m$weights]]
  frame
}

fixed_part <- function(m) paste(m$response, "~", terms_of(TRUE, m$fixed))
random_parts <- function(m, bars) {
  paste(sprintf("(%s %s %s)", mapply(terms_of, m$intercept, m$slopes), bars, m$factors),
        collapse = " + ")
}
lme4_formula <- function(m) {
  paste(m$response, "~", m$fixed_formula, "+",
        random_parts(m, ifelse(m$covariance == "diagonal" & lengths(m$slopes) > 0, "||", "|")))
}

## The optimum ----------------------------------------------------------------------------------

Z_of <- function(m, f, frame) {
  Z <- cbind(if (m$intercept[[f]]) rep(1, nrow(frame)), as.matrix(frame[m$slopes[[f]]]))
  unname(Z)
}

# lme4 orders the terms by their number of levels; these are theta's blocks in its order.
theta_blocks <- function(parsed) {
  sizes <- lengths(parsed$reTrms$cnms)
  ends <- cumsum(sizes * (sizes + 1) / 2)
  Map(function(end, q) seq(end - q * (q + 1) / 2 + 1, end), ends, sizes)
}

find_theta <- function(m, frame, reml) {
  bases <- lapply(setNames(nm = m$factors), function(f) {
    Z <- Z_of(m, f, frame)
    gram <- crossprod(Z) / nrow(Z)
    if (m$covariance[[f]] == "diagonal") gram <- diag(diag(gram), nrow(gram))
    unname(solve(chol(gram)))
  })
  bars <- character()
  for (i in seq_along(m$factors)) {
    scaled <- Z_of(m, m$factors[i], frame) %*% bases[[i]]
    colnames(scaled) <- sprintf(".z%d_%d", i, seq_len(ncol(scaled)))
    frame <- cbind(frame, scaled)
    bars[i] <- sprintf("(%s | %s)", terms_of(FALSE, colnames(scaled)), m$factors[i])
  }
  d <- deviance_function(paste(c(fixed_part(m), bars), collapse = " + "), frame, reml)
  blocks <- theta_blocks(d$parsed)
  q <- vapply(bases, ncol, 1L)[names(blocks)]
  free <- unlist(Map(free_entries, q, m$covariance[names(blocks)]))
  on_diagonal <- unlist(lapply(q, function(k) free_entries(k, "diagonal")))[free]
  fill <- function(par) replace(numeric(length(free)), free, par)
  objective <- function(par) d$evaluate(fill(par))
  # Many rows take their time: one start, and another that lme4's default fit takes below.
  best <- if (nrow(frame) < 1000) minimise(objective, sum(free), on_diagonal)
          else minimise(objective, sum(free), on_diagonal, list(rep(1, sum(free))), 1)

  # Back: Lambda = T Lambda_scaled, made lower triangular by a QR decomposition of its transpose.
  theta <- fill(best$par)
  for (f in names(blocks)) {
    scaled <- bases[[f]] %*% to_lambda(theta[blocks[[f]]], q[[f]])
    Lambda <- t(qr.R(qr(t(scaled), tol = 0)))
    Lambda <- Lambda %*% diag(ifelse(diag(Lambda) < 0, -1, 1), q[[f]])
    theta[blocks[[f]]] <- Lambda[lower.tri(Lambda, diag = TRUE)]
  }
  theta[!free] <- 0
  c(best, list(theta = theta))
}

## Checks ---------------------------------------------------------------------------------------

default_fit <- function(m, frame, reml) {
  suppressWarnings(suppressMessages(
    lmer(as.formula(lme4_formula(m)), frame, weights = .w, REML = reml)))
}

# D, BLUPs and conditional covariances of every level, as lists by factor, against matrix algebra
# that knows nothing of lme4. Z is n x (levels q), a level's columns side by side.
matrix_check <- function(m, frame, reml, fit, D, b, post, criterion) {
  X <- getME(fit, "X")
  y <- getME(fit, "y")
  n <- length(y)
  labels <- lapply(m$groups, function(columns) {
    do.call(paste, c(lapply(frame[columns], as.character), sep = ":"))
  })
  Z <- do.call(cbind, Map(function(f, label) {
    positions <- match(label, rownames(b[[f]]))
    columns <- Z_of(m, f, frame)
    q <- ncol(columns)
    sparseMatrix(rep(seq_len(n), q), rep((positions - 1) * q, q) + rep(seq_len(q), each = n),
                 x = as.vector(columns), dims = c(n, nrow(b[[f]]) * q))
  }, m$factors, labels))
  all_D <- bdiag(Map(function(f) kronecker(diag(nrow(b[[f]])), D[[f]]), m$factors))
  W <- Diagonal(x = frame$.w)
  if (n < 1000) {
    V <- as.matrix(Diagonal(x = 1 / frame$.w) + Z %*% all_D %*% t(Z))
    R <- chol(V)
    log_det <- 2 * sum(log(diag(R)))
    inverse_times <- function(A) backsolve(R, backsolve(R, as.matrix(A), transpose = TRUE))
    conditional <- function() as.matrix(all_D - all_D %*% t(Z) %*% inverse_times(Z %*% all_D))
  } else {
    # V^-1 = W - W Z C^-1 Z' W, C = D^-1 + Z' W Z, here with a dense C.
    C <- as.matrix(solve(all_D) + crossprod(Z, W %*% Z))
    R <- chol(C)
    log_det <- 2 * sum(log(diag(R))) + sum(log(diag(all_D))) - sum(log(frame$.w))
    inverse_times <- function(A) {
      middle <- backsolve(R, backsolve(R, as.matrix(crossprod(Z, W %*% A)), transpose = TRUE))
      as.matrix(W %*% (A - Z %*% middle))
    }
    conditional <- function() chol2inv(R)
    stopifnot(isDiagonal(all_D))
  }
  H <- crossprod(X, inverse_times(X))
  beta <- solve(H, crossprod(X, inverse_times(y)))
  residual <- y - X %*% beta
  weighted <- inverse_times(residual)
  r2 <- sum(residual * weighted)
  df <- n - reml * ncol(X)
  value <- log_det + reml * as.numeric(determinant(H)$modulus) + df * (1 + log(2 * pi * r2 / df))
  all_b <- as.vector(all_D %*% crossprod(Z, weighted))
  all_post <- conditional() * r2 / df
  first <- 0
  for (f in m$factors) {
    q <- ncol(b[[f]])
    for (level in seq_len(nrow(b[[f]]))) {
      here <- first + seq_len(q)
      stopifnot(
        max(abs(all_b[here] - b[[f]][level, ])) < 1e-7 * (1 + max(abs(b[[f]]))),
        max(abs(all_post[here, here] - post[[f]][, , level])) < 1e-7 * (1 + max(post[[f]]))
      )
      first <- first + q
    }
  }
  stopifnot(
    abs(value - criterion) < if (n < 1000) 1e-8 else 1e-6,
    all.equal(as.numeric(beta), as.numeric(fixef(fit)), tolerance = 1e-9),
    all.equal(r2 / df, sigma(fit)^2, tolerance = 1e-9),
    all.equal(unname(as.matrix(vcov(fit))), unname(solve(H) * r2 / df), tolerance = 1e-7)
  )
  value
}

## One entry ------------------------------------------------------------------------------------

reference <- function(m, reml) {
  frame <- read_data(m)
  set.seed(20)
  optimum <- find_theta(m, frame, reml)
  # The full structure, also for a diagonal covariance: lme4 then reports the conditional
  # covariances of one level's effects as a whole, not one block for each "||" term.
  d <- deviance_function(paste(fixed_part(m), "+", random_parts(m, "|")), frame, reml)
  value <- d$evaluate(optimum$theta)
  stopifnot(abs(value - optimum$value) < 1e-7)
  fit <- mkMerMod(environment(d$evaluate),
                  list(par = optimum$theta, fval = value, feval = 1, conv = 0, message = ""),
                  d$parsed$reTrms, fr = d$parsed$fr)
  criterion <- criterion_of(fit, reml)
  stopifnot(abs(criterion - value) < 1e-8)

  by_factor <- function(value) lapply(setNames(nm = m$factors), value)
  blocks <- theta_blocks(d$parsed)
  effects <- ranef(fit, condVar = TRUE)
  b <- by_factor(function(f) as.matrix(effects[[f]]))
  D <- by_factor(function(f) tcrossprod(to_lambda(optimum$theta[blocks[[f]]], ncol(b[[f]]))))
  post <- by_factor(function(f) {
    array(attr(effects[[f]], "postVar"), c(ncol(b[[f]]), ncol(b[[f]]), nrow(b[[f]])))
  })
  by_algebra <- matrix_check(m, frame, reml, fit, D, b, post, criterion)
  by_default <- criterion_of(default_fit(m, frame, reml), reml)
  known <- m$known[if (reml) 1 else 2]
  stopifnot(criterion <= by_default + 1e-8, is.na(known) || abs(criterion - known) < 1e-5)

  id <- paste0(m$id, if (reml) "-reml" else "-ml")
  message(sprintf("%-34s %.8f  lme4's default %+.1e  algebra %+.1e  gradient %.0e", id, criterion,
                  by_default - criterion, by_algebra - criterion, optimum$gradient))
  for (f in m$factors) {
    covariance <- sigma(fit)^2 * D[[f]]
    message("   ", f, ": ", paste(signif(covariance[lower.tri(covariance, diag = TRUE)], 8),
                                  collapse = " "))
  }
  message("   noise: ", signif(sigma(fit)^2, 8))

  # Of many levels only some, spread over the whole in their order.
  shown <- by_factor(function(f) {
    unique(round(seq(1, nrow(b[[f]]), length.out = min(m$shown, nrow(b[[f]])))))
  })
  columns <- setNames(m$groups, m$factors)
  first <- 1:5
  list(
    id = id,
    data_set = if (!is_made_up(m)) m$source,
    data = if (is_made_up(m)) m$source,
    target = m$response,
    formula = lme4_formula(m),
    derived_columns = if (length(m$derived) > 0) m$derived,
    groups = lapply(m$groups, function(g) if (length(g) > 1) as.list(g) else g),
    fixed_effects = as.list(m$fixed),
    fit_intercept = TRUE,
    random_intercept = m$intercept,
    random_slopes = lapply(m$slopes, as.list),
    covariance = m$covariance,
    reml = reml,
    weights = m$weights,
    program = "lme4",
    n_rows = nrow(frame),
    n_levels = lapply(b, nrow),
    criterion = criterion,
    log_likelihood = -criterion / 2,
    lme4_default_criterion = by_default,
    max_abs_gradient = optimum$gradient,
    noise_variance = sigma(fit)^2,
    coef_names = as.list(names(fixef(fit))),
    coef = as.list(unname(fixef(fit))),
    coef_covariance = rows(as.matrix(vcov(fit))),
    effect_names = lapply(b, function(effects) as.list(colnames(effects))),
    random_covariances = lapply(D, function(covariance) rows(sigma(fit)^2 * covariance)),
    levels = by_factor(function(f) {
      labels <- rownames(b[[f]])[shown[[f]]]
      if (length(columns[[f]]) == 1) as.list(labels) else lapply(strsplit(labels, ":"), as.list)
    }),
    random_effects = by_factor(function(f) rows(b[[f]][shown[[f]], , drop = FALSE])),
    random_effects_covariances = by_factor(function(f) {
      lapply(shown[[f]], function(i) rows(matrix(post[[f]][, , i], ncol(b[[f]]))))
    }),
    population_predictions = as.list(unname(
      drop(getME(fit, "X")[first, , drop = FALSE] %*% fixef(fit)))),
    conditional_predictions = as.list(unname(fitted(fit)[first]))
  )
}

entries <- unlist(lapply(models, function(m) list(reference(m, TRUE), reference(m, FALSE))),
                  recursive = FALSE)
columns_of <- function(data) one_line_per_key(lapply(data, as.list))
writeLines(c("{", paste0(' "versions": ', to_json(versions_of("lme4")), ","), ' "data": {',
             paste0(' "', names(made_up), '":\n', vapply(made_up, columns_of, ""),
                    collapse = ",\n"),
             " },", ' "models": [',
             paste(vapply(entries, one_line_per_key, ""), collapse = ",\n"), " ]", "}"),
           "tests/reference/several_factors.json")

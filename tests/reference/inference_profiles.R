# Profiles of the likelihood and of the restricted likelihood, without interpolation: at every value
# of a parameter the other parameters are looked for anew. Sourced by make_inference.R.
#
# A parameter is held at a value through the coordinates of the others. Of a block with covariance
# D, with the effect in question put first, D = L L' with L lower triangular and L[1, 1] its
# standard deviation, so the other entries of L are free. With a correlation held, the standard
# deviations are free; with the noise, all entries of all L are. A fixed effect is held by an offset. The
# coordinates are standardised by the Hessian where the search starts, and after nlminb Newton steps
# with Richardson derivatives follow.

# The minimum of fn near a start. Returns par and value.
polish <- function(fn, start) {
  if (length(start) == 0) return(list(par = start, value = fn(start)))
  x <- suppressWarnings(nlminb(start, fn, control = list(rel.tol = 1e-15, eval.max = 2000,
                                                         iter.max = 1000))$par)
  value <- fn(x)
  for (attempt in 1:4) {
    hessian <- numDeriv::hessian(fn, x, method.args = list(d = 0.01, eps = 1e-3))
    spectrum <- eigen(hessian, symmetric = TRUE)
    scale <- spectrum$vectors %*% diag(1 / sqrt(pmax(spectrum$values, 1e-8) / 2), length(x))
    # numDeriv's steps are relative: around u = 1 they are 0.1 and less of a standard error.
    along <- function(u) fn(x + drop(scale %*% (5 * (u - 1))))
    u <- rep(1, length(x))
    u <- suppressWarnings(nlminb(u, along, control = list(rel.tol = 1e-15, x.tol = 1e-12))$par)
    for (iteration in 1:2) {
      gradient <- numDeriv::grad(along, u, method.args = list(d = 0.02, r = 4))
      curvature <- numDeriv::hessian(along, u, method.args = list(d = 0.02, r = 4))
      step <- tryCatch(solve(curvature, gradient), error = function(e) 0)
      if (!all(is.finite(step)) || along(u - step) > along(u)) break
      u <- u - step
    }
    better <- along(u)
    if (better > value) break
    x <- x + drop(scale %*% (5 * (u - 1)))
    change <- value - better
    value <- better
    if (change < 1e-11) break
  }
  list(par = x, value = value)
}

# Minus twice the log-likelihood at theta and sigma, the fixed effects profiled out.
unprofiled <- function(f) {
  function(theta, sigma) lmerTest:::devfun_vp(c(theta, sigma), f$evaluate, f$reml)
}

# The variance parameters of a fit: their names, estimates, ranges, and for each the way to
# evaluate the deviance at a value and at free coordinates.
variance_parameters <- function(f) {
  blocks <- unname(blocks_of(f))
  theta <- unname(getME(f$fit, "theta"))
  sigma <- sigma(f$fit)
  deviance <- unprofiled(f)
  roots <- lapply(blocks, function(block) sigma * to_lambda(theta[block$theta], block$q))
  flat <- function(L) L[lower.tri(L, diag = TRUE)]
  sizes <- vapply(blocks, function(block) block$q * (block$q + 1) / 2, 1)
  # The free coordinates but those of one block, the noise (as a logarithm) at their end.
  split_free <- function(free, without) {
    taken <- replace(sizes, without, 0)
    ends <- cumsum(taken)
    lapply(seq_along(blocks), function(k) {
      if (k == without) NULL
      else to_lambda(free[seq(ends[k] - taken[k] + 1, ends[k])], blocks[[k]]$q)
    })
  }
  evaluate_at <- function(all_roots, noise) {
    deviance(unlist(lapply(all_roots, function(L) flat(lower_root(L)))) / noise, noise)
  }
  others <- function(without) unlist(lapply(roots[-without], flat))

  parameters <- list()
  for (k in seq_along(blocks)) local({
    k <- k
    block <- blocks[[k]]
    D <- tcrossprod(roots[[k]])
    sds <- sqrt(diag(D))
    for (i in seq_len(block$q)) local({
      order <- c(i, setdiff(seq_len(block$q), i))
      back <- order(order)
      first <- lower_root(roots[[k]][order, , drop = FALSE])
      n_others <- length(others(k))
      parameters[[length(parameters) + 1]] <<- list(
        name = sd_name(block$effects[i], block$factor), estimate = sds[i], lower = 0, upper = Inf,
        start = c(others(k), flat(first)[-1], log(sigma)),
        evaluate = function(value, free) {
          all_roots <- split_free(free, k)
          here <- free[-c(seq_len(n_others), length(free))]
          all_roots[[k]] <- to_lambda(c(value, here), block$q)[back, , drop = FALSE]
          evaluate_at(all_roots, exp(free[length(free)]))
        })
    })
    if (block$q == 2) parameters[[length(parameters) + 1]] <<- list(
      name = correlation_name(block$effects[1], block$effects[2], block$factor),
      estimate = D[2, 1] / prod(sds), lower = -1, upper = 1,
      start = c(others(k), log(sds), log(sigma)),
      evaluate = function(value, free) {
        all_roots <- split_free(free, k)
        s <- exp(free[length(free) - 2:1])
        all_roots[[k]] <- matrix(c(s[1], value * s[2], 0, sqrt(max(1 - value^2, 0)) * s[2]), 2)
        evaluate_at(all_roots, exp(free[length(free)]))
      })
  })
  parameters[[length(parameters) + 1]] <- list(
    name = "sd(noise)", estimate = sigma, lower = 0, upper = Inf,
    start = unlist(lapply(roots, flat)),
    evaluate = function(value, free) evaluate_at(split_free(free, 0), value))
  parameters
}

# The fixed effects, by maximum likelihood: y - value x is regressed on the other columns.
fixed_parameters <- function(f) {
  stopifnot(!f$reml)
  X <- getME(f$fit, "X")
  parsed <- deviance_function(f$formula, f$frame, FALSE)$parsed
  lapply(seq_len(ncol(X)), function(j) {
    held <- parsed
    held$X <- structure(X[, -j, drop = FALSE], assign = attr(X, "assign")[-j])
    evaluate <- do.call(mkLmerDevfun, c(held, list(control = quiet)))
    response <- environment(evaluate)$resp
    list(name = effect_name(colnames(X)[j]), estimate = unname(fixef(f$fit)[j]), lower = -Inf,
         upper = Inf, start = unname(getME(f$fit, "theta")),
         evaluate = function(value, free) {
           response$setOffset(X[, j] * value)
           evaluate(free)
         })
  })
}

# deviance(value) - its minimum, with the search for the others started where it ended last.
profile_of <- function(parameter, minimum) {
  last <- parameter$start
  function(value) {
    found <- polish(function(free) parameter$evaluate(value, free), last)
    stopifnot(found$value > minimum - 1e-8)
    last <<- found$par
    found$value - minimum
  }
}

# One end of the interval: the value, and whether it is the end of the range, where the deviance
# has not risen by as much.
interval_end <- function(parameter, minimum, rise, direction, step) {
  edge <- if (direction < 0) parameter$lower else parameter$upper
  profile <- profile_of(parameter, minimum)
  beyond <- function(value) sqrt(max(profile(value), 0)) - sqrt(rise)
  inside <- parameter$estimate
  if (inside == edge) return(list(value = edge, at_edge = TRUE))
  at_inside <- -sqrt(rise)
  repeat {
    outside <- inside + direction * step
    if (direction * outside >= direction * edge) {
      outside <- edge
      # A standard deviation of zero or a correlation of one, or just short of it for the noise.
      at_outside <- if (parameter$name == "sd(noise)") Inf else beyond(edge)
      if (at_outside <= 0) return(list(value = edge, at_edge = TRUE))
      if (is.infinite(at_outside)) { step <- step / 2; next }
    } else {
      at_outside <- beyond(outside)
    }
    if (at_outside > 0) break
    inside <- outside
    at_inside <- at_outside
  }
  root <- uniroot(beyond, sort(c(inside, outside)), tol = 1e-11 * (abs(outside) + step))
  stopifnot(abs(root$f.root) < 1e-6)
  list(value = root$root, at_edge = FALSE)
}

exact_interval <- function(f, parameter, level) {
  minimum <- f$optimum$value - constant_of(f)
  # Half a standard error or so, from a rough curvature.
  size <- max(abs(parameter$estimate), 1e-3)
  profile <- profile_of(parameter, minimum)
  h <- 0.05 * if (parameter$upper == 1) 1 - abs(parameter$estimate) else size
  step <- h * sqrt(qchisq(level, 1) / max(profile(parameter$estimate + h), 1e-6)) / 2
  lapply(c(-1, 1), function(direction) {
    interval_end(parameter, minimum, qchisq(level, 1), direction, step)
  })
}

# What lme4's criterion has beyond lmerTest's unprofiled deviance: the weights.
constant_of <- function(f) -sum(log(f$frame$.w))

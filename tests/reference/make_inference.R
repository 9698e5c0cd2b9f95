# Writes inference.json: what R says about inference from linear mixed models. README.md beside this
# file describes every field.
#
#     Rscript tests/reference/make_inference.R        (from the root of the repository)
#     Rscript tests/reference/make_inference.R data   (writes unbalanced_crossed.csv alone)
#
# All numbers belong to fits at the optimum itself, which is looked for as in make_references.R: as
# lme4 left alone stops early, so do the numbers that are printed elsewhere. Where a program repeats
# a fit inside (by maximum likelihood, without a group) or interpolates (profiles), the numbers
# stored are computed here from such fits; what the program says by itself stands beside them where
# the two differ.

suppressPackageStartupMessages({
  library(lme4)
  library(lmerTest)
  library(pbkrtest)
  library(RLRsim)
})
source("tests/reference/common.R")
source("tests/reference/inference_models.R")
source("tests/reference/inference_profiles.R")

if (identical(commandArgs(trailingOnly = TRUE), "data")) {
  con <- file(file.path("tests/reference", crossed_file), "wb")
  write.table(unbalanced_crossed(), con, sep = ",", eol = "\n", quote = FALSE, row.names = FALSE)
  close(con)
  quit()
}
stopifnot(all.equal(unbalanced_crossed(), read.csv(file.path("tests/reference", crossed_file))))

started <- Sys.time()
section <- function(name) {
  message(sprintf("%s (%.0f s)", name, as.numeric(Sys.time() - started, units = "secs")))
}
largest <- function(one, other) max(abs(one / other - 1))

## Coefficient tables ----------------------------------------------------------------------------

table_fields <- c("estimate", "std_error", "df", "t", "p")

# The model of y, X and Z times the square roots of the weights, which is one without weights.
# pbkrtest leaves the weights of a fit out.
without_weights <- function(f) {
  frame <- f$frame
  root <- sqrt(frame$.w)
  frame$Reaction <- root * frame$Reaction
  frame$.one <- root
  frame$.days <- root * frame$Days
  frame$.w <- 1
  fit_formula("Reaction ~ 0 + .one + .days + (0 + .one + .days | Subject)", frame, f$reml)
}

# Derivatives around `at` in standardised parameters u, of which `at` is 1: numDeriv's steps are
# relative, and so a tenth of a standard error and less.
wide <- list(d = 0.03, r = 5)
standardised <- function(deviance, at, covariance) {
  scale <- 4 * t(chol(covariance))
  parameters <- function(u) at + drop(scale %*% (u - 1))
  ones <- rep(1, length(at))
  hessian <- numDeriv::hessian(function(u) deviance(parameters(u)), ones, method.args = wide)
  list(parameters = parameters, ones = ones, scale = scale, hessian = hessian)
}
deviance_of <- function(f) function(x) lmerTest:::devfun_vp(x, f$evaluate, f$reml)

# The degrees of freedom with derivatives taken there: how far lmerTest's own are from what they
# approximate.
precise_df <- function(f) {
  fit <- f$fit
  at <- c(getME(fit, "theta"), sigma(fit))
  rough <- with_satterthwaite(f)@vcov_varpar
  local <- standardised(deviance_of(f), at, rough)
  jacobian <- numDeriv::jacobian(function(u) {
    diag(as.matrix(lmerTest:::get_covbeta(local$parameters(u), f$evaluate)))
  }, local$ones, method.args = wide)
  variances <- diag(as.matrix(vcov(fit)))
  2 * variances^2 / rowSums(jacobian %*% solve(local$hessian / 2) * jacobian)
}

coefficient_tables <- function(id, reml = TRUE, ddfs = c("Satterthwaite", "Kenward-Roger")) {
  f <- fit_of(id, reml)
  lapply(ddfs, function(ddf) {
    weighted <- f$model$weighted && ddf == "Kenward-Roger"
    with_ddf <- with_satterthwaite(if (weighted) without_weights(f) else f)
    table <- summary(with_ddf, ddf = ddf)$coefficients
    entry <- c(list(model = f$key, ddf = ddf, coef_names = as.list(names(fixef(f$fit)))),
               columns_as(as.data.frame(table), table_fields))
    if (ddf == "Kenward-Roger") {
      return(c(entry, list(coef_covariance = rows(as.matrix(vcovAdj(with_ddf))))))
    }
    precise <- if (any(getME(f$fit, "theta") == 0)) rep(NA, nrow(table)) else precise_df(f)
    message(sprintf("  %-36s lmerTest's degrees of freedom are off by %.1e", f$key,
                    largest(table[, "df"], precise)))
    c(entry, list(df_precise = values(precise),
                  variance_parameters = as.list(c(names(getME(f$fit, "theta")), "sigma")),
                  variance_parameters_covariance = rows(with_ddf@vcov_varpar)))
  })
}

section("coefficient tables")
tables <- c(
  unlist(lapply(c("sleepstudy-slope", "sleepstudy-slope-diagonal", "sleepstudy-slope-weighted",
                  "sleepstudy-intercept", "cake-plus-temp", "cake-by-temp", "cake-by-temperature",
                  "cake-unbalanced-by-temp", "pastes", "penicillin", "dietox-slope", "dyestuff",
                  "dyestuff2", "crossed", "crossed-interaction", "crossed-slope"),
                coefficient_tables), recursive = FALSE),
  coefficient_tables("sleepstudy-slope", FALSE, "Satterthwaite"),
  coefficient_tables("crossed", FALSE, "Satterthwaite"),
  coefficient_tables("sleepstudy-slope-weighted", FALSE, "Satterthwaite")
)

## F tests ---------------------------------------------------------------------------------------

f_fields <- c("sum_sq", "mean_sq", "num_df", "den_df", "f", "p")
both <- c("Satterthwaite", "Kenward-Roger")

anova_entries <- function(id) {
  f <- fit_of(id)
  with_ddf <- with_satterthwaite(f)
  unlist(lapply(c("I", "II", "III"), function(type) {
    lapply(both, function(ddf) {
      table <- anova(with_ddf, type = type, ddf = ddf)
      contrasts <- attr(table, "hypotheses")
      c(list(model = f$key, type = type, ddf = ddf, terms = as.list(rownames(table))),
        columns_as(table, f_fields),
        list(contrasts = lapply(unname(contrasts), function(L) rows(rbind(L)))))
    })
  }), recursive = FALSE)
}

section("anova")
anovas <- unlist(lapply(c("cake-plus-temp", "cake-by-temp", "cake-by-temperature",
                          "cake-unbalanced-by-temp", "cake-unbalanced-by-temperature", "crossed",
                          "crossed-interaction"), anova_entries), recursive = FALSE)

recipes_at <- function(temp) rbind(c(0, 1, 0, 0, temp, 0), c(0, 0, 1, 0, 0, temp))
made_up_contrasts <- list(
  list("cake-by-temp", recipes_at(200), c(0, 0)),
  list("cake-unbalanced-by-temp", recipes_at(200), c(0, 0)),
  list("cake-unbalanced-by-temp", recipes_at(185), c(-2, -1)),
  list("cake-unbalanced-by-temp", rbind(recipes_at(200), c(0, 1, -1, 0, 200, -200)), c(0, 0, 0)),
  list("crossed-interaction", rbind(c(0, 0, 1, 0, 0, 2, 0), c(0, 0, 0, 1, 0, 0, 2),
                                    c(0, 0, 0, 0, 1, 0, 0)), c(0, 0, 0)),
  list("crossed", rbind(c(0, 1, 0), c(0, 0, 1)), c(0, 0)),
  list("crossed-slope", rbind(c(1, 2, 1), c(0, 1, -1)), c(20, 0)),
  list("sleepstudy-slope", diag(2), c(250, 10)),
  list("dietox-slope", diag(2), c(15, 7))
)

contrast_entries <- function(id, L, rhs) {
  f <- fit_of(id)
  with_ddf <- with_satterthwaite(f)
  lapply(both, function(ddf) {
    by_f <- contestMD(with_ddf, L, rhs = rhs, ddf = ddf)
    by_t <- do.call(rbind, lapply(seq_len(nrow(L)), function(i) {
      contest1D(with_ddf, L[i, ], rhs = rhs[i], ddf = ddf, confint = TRUE)
    }))
    list(model = f$key, ddf = ddf, contrasts = rows(L), rhs = as.list(rhs),
         f_test = columns_as_scalars(by_f, f_fields),
         t_tests = columns_as(by_t, c("estimate", "std_error", "df", "t", "lower", "upper", "p")))
  })
}
columns_as_scalars <- function(table, names) lapply(columns_as(table, names), `[[`, 1)

section("contrasts")
contrasts_tested <- unlist(lapply(made_up_contrasts, function(a) {
  contrast_entries(a[[1]], a[[2]], a[[3]])
}), recursive = FALSE)

## Profiles --------------------------------------------------------------------------------------

# lme4's intervals, off a spline through the profile, in the order of variance_parameters(). lme4
# has a correlation between the two standard deviations.
lme4_intervals <- function(f, level) {
  assign("frame", f$frame, globalenv())
  refitted <- suppressWarnings(suppressMessages(lme4::lmer(
    as.formula(f$formula), frame, REML = FALSE, start = getME(f$fit, "theta"),
    control = lmerControl(optCtrl = list(xtol_abs = 1e-12, ftol_abs = 1e-13, maxeval = 1e5)))))
  tryCatch({
    profile <- suppressWarnings(profile(refitted, delta = 0.1, maxpts = 400, devtol = 1e-6))
    table <- suppressWarnings(confint(profile, level = level))
    correlation <- which(vapply(blocks_of(f), `[[`, 1L, "q") == 2)
    stopifnot(length(correlation) <= 1, length(correlation) == 0 || correlation == 1)
    if (length(correlation) == 1) table[c(1, 3, 2, 4:nrow(table)), ] else table
  }, error = function(e) {
    message("  lme4's profile fails: ", conditionMessage(e))
    NULL
  })
}

interval_entry <- function(id, reml = FALSE, level = 0.95) {
  f <- fit_of(id, reml)
  parameters <- c(variance_parameters(f), if (!reml) fixed_parameters(f))
  ends <- lapply(parameters, exact_interval, f = f, level = level)
  by_lme4 <- if (!reml) lme4_intervals(f, level)
  side <- function(i, field) lapply(ends, function(e) e[[i]][[field]])
  lme4_side <- function(i) if (!is.null(by_lme4)) values(by_lme4[, i])
  entry <- list(
    model = f$key, level = level, parameters = lapply(parameters, `[[`, "name"),
    estimates = lapply(parameters, `[[`, "estimate"),
    lower = side(1, "value"), upper = side(2, "value"),
    lower_at_edge = side(1, "at_edge"), upper_at_edge = side(2, "at_edge"),
    lme4_lower = lme4_side(1), lme4_upper = lme4_side(2)
  )
  show <- data.frame(lower = unlist(entry$lower), upper = unlist(entry$upper))
  if (!is.null(by_lme4)) {
    show$lme4_lower <- by_lme4[, 1]
    show$lme4_upper <- by_lme4[, 2]
  }
  rownames(show) <- unlist(entry$parameters)
  message("  ", f$key)
  message(paste0("    ", capture.output(print(show, digits = 9)), collapse = "\n"))
  entry
}

wald_entry <- function(id, reml, level) {
  f <- fit_of(id, reml)
  table <- confint(f$fit, method = "Wald", level = level, parm = "beta_")
  list(model = f$key, level = level, coef_names = as.list(rownames(table)),
       lower = values(table[, 1]), upper = values(table[, 2]))
}

section("profile intervals")
intervals <- c(
  lapply(c("sleepstudy-slope", "sleepstudy-intercept", "dietox-slope", "penicillin", "pastes",
           "dyestuff", "dyestuff2", "crossed"), interval_entry),
  list(interval_entry("sleepstudy-slope", level = 0.8)),
  lapply(c("sleepstudy-slope", "penicillin", "pastes", "dyestuff", "dyestuff2"), interval_entry,
         reml = TRUE)
)
wald_intervals <- list(wald_entry("sleepstudy-slope", TRUE, 0.95),
                       wald_entry("sleepstudy-slope", FALSE, 0.8),
                       wald_entry("crossed-interaction", TRUE, 0.95))

## Profile curves --------------------------------------------------------------------------------

curve_entries <- function(id, reml, factors, which = NULL) {
  f <- fit_of(id, reml)
  parameters <- variance_parameters(f)
  names(parameters) <- vapply(parameters, `[[`, "", "name")
  if (is.null(which)) which <- names(parameters)
  lapply(which, function(name) {
    parameter <- parameters[[name]]
    points <- if (parameter$upper == 1) c(-0.6, -0.3, 0, 0.2, 0.4, 0.6, 0.8)
              else parameter$estimate * factors
    rise <- numeric(length(points))
    # From the estimate outwards, each search starting where the last one ended.
    for (side in list(rev(which(points < parameter$estimate)),
                      which(points >= parameter$estimate))) {
      profile <- profile_of(parameter, f$optimum$value - constant_of(f))
      for (i in side) rise[i] <- profile(points[i])
    }
    zeta <- sign(points - parameter$estimate) * sqrt(pmax(rise, 0))
    message(sprintf("  %-22s %-30s %s", f$key, name, paste(signif(zeta, 7), collapse = " ")))
    list(model = f$key, parameter = name, estimate = parameter$estimate, values = as.list(points),
         zeta = as.list(zeta))
  })
}

section("profile curves")
around <- c(0.5, 0.7, 0.85, 1.1, 1.3, 1.6, 2)
curves <- c(
  curve_entries("sitka-slope", TRUE, c(0.85, 0.9, 0.95, 1.05, 1.1, 1.2, 1.3),
                c("sd(intercept|tree)", "sd(Time|tree)")),
  curve_entries("sleepstudy-slope", TRUE, around), curve_entries("sleepstudy-slope", FALSE, around),
  curve_entries("penicillin", TRUE, around)
)

## Standard errors of the variance components ----------------------------------------------------

component_entry <- function(id, reml) {
  f <- fit_of(id, reml)
  blocks <- blocks_of(f)
  to_components <- function(x) {
    sigma <- x[length(x)]
    c(unlist(lapply(blocks, function(block) {
      D <- covariance_of(block, x, sigma)
      D[lower.tri(D, diag = TRUE)]
    })), sigma^2)
  }
  to_theta <- function(components) {
    sigma <- sqrt(components[length(components)])
    c(unlist(lapply(blocks, function(block) {
      lower <- to_lambda(components[block$theta], block$q)
      L <- t(chol(lower + t(lower) - diag(diag(lower), block$q)))
      L[lower.tri(L, diag = TRUE)] / sigma
    })), sigma)
  }
  at <- unname(c(getME(f$fit, "theta"), sigma(f$fit)))
  J <- numDeriv::jacobian(to_components, at)
  rough <- J %*% with_satterthwaite(f)@vcov_varpar %*% t(J)
  local <- standardised(function(components) deviance_of(f)(to_theta(components)),
                        unname(to_components(at)), rough)
  covariance <- local$scale %*% solve(local$hessian / 2) %*% t(local$scale)
  stopifnot(all.equal(covariance, rough, tolerance = 1e-4))
  by_block <- lapply(unname(blocks), function(block) {
    at <- entries_of(block)
    lapply(seq_len(nrow(at)), function(i) {
      list(factor = block$factor, effect = block$effects[at[i, 1]], other = block$effects[at[i, 2]])
    })
  })
  message(sprintf("  %-32s %s", f$key, paste(signif(sqrt(diag(covariance)), 7), collapse = " ")))
  list(model = f$key,
       components = c(unlist(by_block, recursive = FALSE),
                      list(list(factor = "noise", effect = NULL, other = NULL))),
       estimates = values(to_components(at)), std_errors = as.list(sqrt(diag(covariance))),
       covariance = rows((covariance + t(covariance)) / 2))
}

section("variance components")
components <- unlist(lapply(
  c("sleepstudy-slope", "sleepstudy-slope-diagonal", "sleepstudy-slope-weighted", "dietox-slope",
    "penicillin", "pastes", "dyestuff", "crossed-slope"),
  function(id) list(component_entry(id, TRUE), component_entry(id, FALSE))), recursive = FALSE)

## Comparisons of models -------------------------------------------------------------------------

comparison_fields <- c("npar", "aic", "bic", "log_likelihood", "deviance", "chisq", "df", "p")
# By maximum likelihood this is what anova() says of REML fits by default, as it refits them.
comparison_entry <- function(ids, reml = FALSE) {
  made <- lapply(ids, fit_of, reml = reml)
  table <- do.call(anova, c(lapply(unname(made), `[[`, "fit"),
                            list(refit = FALSE, model.names = as.list(ids))))
  c(list(models = lapply(made, `[[`, "key")), columns_as(table, comparison_fields))
}

section("comparisons")
comparisons <- list(
  comparison_entry(c("sleepstudy-intercept", "sleepstudy-slope")),
  comparison_entry(c("sleepstudy-intercept", "sleepstudy-slope"), reml = TRUE),
  comparison_entry(c("sleepstudy-intercept", "sleepstudy-slope-diagonal", "sleepstudy-slope")),
  comparison_entry(c("sleepstudy-slope-without-fixed", "sleepstudy-slope")),
  comparison_entry(c("sleepstudy-mean", "sleepstudy-intercept", "sleepstudy-slope")),
  comparison_entry(c("cake-plus-temp", "cake-by-temp")),
  comparison_entry(c("cake-plus-temp", "cake-plus-temperature", "cake-by-temperature")),
  comparison_entry(c("crossed", "crossed-slope"))
)

# One row for the model itself (null where nothing is dropped), one for each term.
dropped_entry <- function(id) {
  f <- fit_of(id, FALSE)
  with_ddf <- with_satterthwaite(fit_of(id))
  scope <- drop.scope(terms(f$fit))
  reduced <- lapply(scope, function(term) {
    formula <- update(as.formula(f$formula), as.formula(paste("~ . -", term)))
    fit_formula(deparse1(formula), f$frame, FALSE)$fit
  })
  all_fits <- c(list(f$fit), reduced)
  npar <- vapply(all_fits, function(fit) attr(logLik(fit), "df"), 1)
  deviance <- vapply(all_fits, function(fit) -2 * as.numeric(logLik(fit)), 1)
  lrt <- c(NA, deviance[-1] - deviance[1])
  df <- c(NA, npar[1] - npar[-1])
  assign("frame", f$frame, globalenv())
  by_lme4 <- suppressMessages(drop1(f$fit, test = "Chisq"))
  message(sprintf("  %-28s the likelihood ratios of drop1 are off by %.1e", f$key,
                  largest(by_lme4$LRT[-1], lrt[-1])))
  f_tests <- lapply(setNames(nm = both), function(ddf) {
    table <- drop1(with_ddf, ddf = ddf)
    stopifnot(identical(rownames(table), scope))
    columns_as(table, f_fields)
  })
  list(model = f$key, f_model = fit_id(id, TRUE), terms = as.list(scope),
       npar = values(df), aic = values(deviance + 2 * npar), lrt = values(lrt),
       p = values(pchisq(lrt, df, lower.tail = FALSE)), f_tests = f_tests)
}
drops <- lapply(c("cake-plus-temp", "cake-by-temp", "cake-plus-temperature",
                  "cake-unbalanced-by-temperature", "dietox-covariates", "crossed",
                  "crossed-interaction"), dropped_entry)

criteria_entry <- function(id, reml) {
  f <- fit_of(id, reml)
  by_ml <- fit_of(id, FALSE)
  likelihood <- logLik(f$fit)
  ml_likelihood <- logLik(by_ml$fit)
  edf <- attr(ml_likelihood, "df")
  list(model = f$key, log_likelihood = as.numeric(likelihood), npar = attr(likelihood, "df"),
       aic = AIC(f$fit), bic = BIC(f$fit), n_rows = nobs(f$fit), df_residual = df.residual(f$fit),
       ml_deviance_at_estimates = deviance(f$fit, REML = FALSE),
       reml_criterion_at_estimates = -2 * as.numeric(logLik(f$fit, REML = TRUE)),
       extract_aic = list(edf, -2 * as.numeric(ml_likelihood) + 2 * edf))
}
criteria <- unlist(lapply(
  c("sleepstudy-slope", "sleepstudy-slope-diagonal", "sleepstudy-slope-weighted",
    "cake-by-temperature", "pastes", "penicillin", "dietox-slope", "dyestuff2", "crossed-slope"),
  function(id) list(criteria_entry(id, TRUE), criteria_entry(id, FALSE))), recursive = FALSE)

## Restricted likelihood ratio tests -------------------------------------------------------------

# statistic is computed from the fits at their optima. Where it is zero no simulated value can be
# below it and p is 1, which RLRsim says only if rounding leaves it exactly zero.
simulated_test <- function(id, null, alone, test) {
  f <- fit_of(id, test == "RLRT")
  alternative <- f$fit
  assign("frame", f$frame, globalenv())
  fit_default <- function(formula) lme4::lmer(as.formula(formula), frame, REML = test == "RLRT")
  n_sim <- 1e5
  result <- if (test == "LRT") {
    null_fit <- lm(as.formula(null), frame)
    statistic <- 2 * as.numeric(logLik(alternative) - logLik(null_fit))
    exactLRT(alternative, null_fit, seed = 1, nsim = n_sim)
  } else if (is.null(alone)) {
    null_fit <- lm(as.formula(null), frame)
    statistic <- 2 * as.numeric(logLik(alternative, REML = TRUE) - logLik(null_fit, REML = TRUE))
    suppressMessages(exactRLRT(alternative, seed = 1, nsim = n_sim))
  } else {
    null_fit <- fit_formula(null, f$frame, TRUE)$fit
    statistic <- 2 * as.numeric(logLik(alternative, REML = TRUE) - logLik(null_fit, REML = TRUE))
    exactRLRT(fit_default(alone), alternative, null_fit, seed = 1, nsim = n_sim)
  }
  message(sprintf("  %-28s %-5s %.8f (RLRsim %+.1e)  p %.5f", f$key, test, statistic,
                  result$statistic - statistic, result$p.value))
  stopifnot(abs(result$statistic - statistic) < 1e-7)
  is_zero <- statistic < 1e-9
  list(model = f$key, test = test, null_formula = null, alone_formula = alone,
       statistic = if (is_zero) 0 else statistic, p = if (is_zero) 1 else result$p.value,
       n_sim = n_sim)
}

section("restricted likelihood ratio tests")
simulated_tests <- list(
  simulated_test("dyestuff", "Yield ~ 1", NULL, "RLRT"),
  simulated_test("dyestuff2", "Yield ~ 1", NULL, "RLRT"),
  simulated_test("sleepstudy-intercept", "Reaction ~ Days", NULL, "RLRT"),
  simulated_test("sleepstudy-slope-diagonal", "Reaction ~ Days + (1 | Subject)",
                 "Reaction ~ Days + (0 + Days | Subject)", "RLRT"),
  simulated_test("sleepstudy-slope-diagonal", "Reaction ~ Days + (0 + Days | Subject)",
                 "Reaction ~ Days + (1 | Subject)", "RLRT"),
  simulated_test("penicillin", "diameter ~ 1 + (1 | sample)", "diameter ~ 1 + (1 | plate)", "RLRT"),
  simulated_test("pastes", "strength ~ 1 + (1 | batch:cask)", "strength ~ 1 + (1 | batch)", "RLRT"),
  simulated_test("crossed", "y ~ x + z + (1 | a)", "y ~ x + z + (1 | b)", "RLRT"),
  simulated_test("dyestuff", "Yield ~ 1", NULL, "LRT"),
  simulated_test("sleepstudy-intercept", "Reaction ~ 1", NULL, "LRT"),
  simulated_test("sleepstudy-mean", "Reaction ~ 1", NULL, "LRT")
)

## Influence -------------------------------------------------------------------------------------

diagnostic_entry <- function(id, reml = TRUE) {
  f <- fit_of(id, reml)
  list(model = f$key, hat_values = values(hatvalues(f$fit)),
       cooks_distance = values(cooks.distance(f$fit)), fitted = values(fitted(f$fit)),
       response_residuals = values(residuals(f$fit)),
       pearson_residuals = values(residuals(f$fit, type = "pearson")),
       scaled_pearson_residuals = values(residuals(f$fit, type = "pearson", scaled = TRUE)))
}

# Fits without the rows of each level, or without a row each.
deletion_entry <- function(id, factor, reml = TRUE, rows_left_out = NULL) {
  f <- fit_of(id, reml)
  cases <- if (is.null(factor)) as.list(rows_left_out)
           else lapply(levels(f$frame[[factor]]), function(l) which(f$frame[[factor]] == l))
  full <- fixef(f$fit)
  refits <- lapply(cases, function(rows) {
    frame <- droplevels(f$frame[-rows, ])
    fit_formula(f$formula, frame, reml)
  })
  p <- length(full)
  dfbeta <- t(vapply(refits, function(r) fixef(r$fit) - full, full))
  if (p == 1) dfbeta <- t(dfbeta)
  covariances <- lapply(refits, function(r) as.matrix(vcov(r$fit)))
  mahalanobis <- rowSums(dfbeta %*% solve(as.matrix(vcov(f$fit))) * dfbeta)
  n <- length(cases)
  assign("frame", f$frame, globalenv())
  if (!is.null(factor)) {
    by_lme4 <- dfbeta(influence(f$fit, factor, data = f$frame))
    by_lme4 <- by_lme4[levels(f$frame[[factor]]), , drop = FALSE]
    off <- max(abs(t(by_lme4 - dfbeta)) / sqrt(diag(as.matrix(vcov(f$fit)))))
    message(sprintf("  %-26s without %-8s dfbeta of lme4's own is off by %.1e standard errors",
                    f$key, factor, off))
  }
  spread <- function(r) {
    lapply(unname(blocks_of(r)), function(block) {
      rows(covariance_of(block, getME(r$fit, "theta"), sigma(r$fit)))
    })
  }
  list(model = f$key, factor = factor,
       levels = if (!is.null(factor)) as.list(levels(f$frame[[factor]])),
       rows = if (is.null(factor)) as.list(rows_left_out - 1L),
       blocks = lapply(unname(blocks_of(f)), `[[`, "factor"),
       criterion = lapply(refits, function(r) r$optimum$value),
       coef = lapply(refits, function(r) values(fixef(r$fit))),
       coef_covariance = lapply(covariances, rows),
       random_covariances = lapply(refits, spread),
       noise_variance = lapply(refits, function(r) sigma(r$fit)^2),
       dfbeta = rows(dfbeta),
       dfbetas = rows(dfbeta / t(matrix(vapply(covariances, function(V) sqrt(diag(V)), full), p))),
       cooks_distance = as.list(mahalanobis / p),
       lme4_cooks_distance = as.list(mahalanobis * (n - p) / (n * p)))
}

section("influence")
diagnostics <- c(
  lapply(c("sleepstudy-slope", "sleepstudy-slope-weighted", "penicillin", "crossed"),
         diagnostic_entry),
  list(diagnostic_entry("sleepstudy-slope", FALSE))
)
deletions <- list(
  deletion_entry("sleepstudy-slope", "Subject"),
  deletion_entry("sleepstudy-slope", "Subject", FALSE),
  deletion_entry("sleepstudy-slope", NULL, rows_left_out = 1:20),
  deletion_entry("penicillin", "plate"),
  deletion_entry("penicillin", "sample"),
  deletion_entry("penicillin", NULL, rows_left_out = 1:20),
  deletion_entry("crossed", "a"),
  deletion_entry("crossed", "b")
)

## Simulated effects and predictions -------------------------------------------------------------

n_sims <- 20000
simulation_entry <- function(id) {
  f <- fit_of(id)
  assign("frame", f$frame, globalenv())
  random <- merTools::REsim(f$fit, n.sims = n_sims, seed = 1)
  fixed <- merTools::FEsim(f$fit, n.sims = n_sims, seed = 1)
  newdata <- f$frame[1:5, ]
  predictions <- function(...) {
    as.data.frame(suppressWarnings(merTools::predictInterval(
      f$fit, newdata, level = 0.95, n.sims = n_sims, stat = "mean", seed = 1, ...)))
  }
  by_kind <- list(with_noise = predictions(),
                  without_noise = predictions(include.resid.var = FALSE),
                  population = predictions(which = "fixed"))
  list(model = f$key, n_sims = n_sims,
       random_effects = list(factor = as.list(as.character(random$groupFctr)),
                             level = as.list(as.character(random$groupID)),
                             effect = as.list(effect_name(as.character(random$term))),
                             mean = as.list(random$mean), median = as.list(random$median),
                             sd = as.list(random$sd)),
       fixed_effects = list(effect = as.list(effect_name(as.character(fixed$term))),
                            mean = as.list(fixed$mean), median = as.list(fixed$median),
                            sd = as.list(fixed$sd)),
       predictions = lapply(by_kind, function(table) {
         list(fit = as.list(table$fit), lower = as.list(table$lwr), upper = as.list(table$upr))
       }))
}

section("simulations")
simulations <- lapply(c("sleepstudy-slope", "penicillin"), simulation_entry)

## Shares of the variance, the conditional AIC, another response ---------------------------------

# Nakagawa & Schielzeth (2013), with Johnson's (2014) mean variance of the random effects over the
# rows. The fixed effects' variance has the divisor n - 1. adjusted_icc leaves the fixed effects'
# variance out, icc has it in the denominator.
shares_entry <- function(id) {
  f <- fit_of(id)
  fit <- f$fit
  fixed <- var(drop(getME(fit, "X") %*% fixef(fit)))
  Zt <- getME(fit, "Zt")
  Lambdat <- getME(fit, "Lambdat")
  random <- sigma(fit)^2 * sum((Lambdat %*% Zt)^2) / nrow(f$frame)
  noise <- sigma(fit)^2
  total <- fixed + random + noise
  list(model = f$key, fixed_variance = fixed, random_variance = random, noise_variance = noise,
       r2_marginal = fixed / total, r2_conditional = (fixed + random) / total,
       adjusted_icc = random / (random + noise), icc = random / total)
}

# Vaida & Blanchard (2005): minus twice the likelihood of y given the random effects, plus twice
# (the trace of the hat matrix + 1), at the stored estimates.
conditional_aic_entry <- function(id, reml) {
  f <- fit_of(id, reml)
  noise <- sigma(f$fit) / sqrt(f$frame$.w)
  conditional <- sum(dnorm(getME(f$fit, "y"), fitted(f$fit), noise, log = TRUE))
  rho <- sum(hatvalues(f$fit))
  list(model = f$key, conditional_log_likelihood = conditional, effective_parameters = rho,
       conditional_aic = -2 * conditional + 2 * (rho + 1))
}

refit_entry <- function(id, reml) {
  f <- fit_of(id, reml)
  frame <- f$frame
  frame$Reaction <- log(frame$Reaction)
  again <- fit_formula(f$formula, frame, reml)
  list(model = f$key, response = "log(Reaction)", criterion = again$optimum$value,
       coef = values(fixef(again$fit)), coef_covariance = rows(as.matrix(vcov(again$fit))),
       random_covariances = lapply(unname(blocks_of(again)), function(block) {
         rows(covariance_of(block, getME(again$fit, "theta"), sigma(again$fit)))
       }),
       noise_variance = sigma(again$fit)^2)
}

section("shares of the variance, conditional AIC, another response")
shares <- lapply(c("sleepstudy-slope", "penicillin", "pastes", "crossed-slope", "cake-by-temp"),
                 shares_entry)
conditional_aics <- list(
  conditional_aic_entry("sleepstudy-slope", TRUE), conditional_aic_entry("sleepstudy-slope", FALSE),
  conditional_aic_entry("sleepstudy-slope-weighted", TRUE),
  conditional_aic_entry("penicillin", TRUE), conditional_aic_entry("crossed", FALSE)
)
other_responses <- list(refit_entry("sleepstudy-slope", TRUE),
                        refit_entry("sleepstudy-slope", FALSE))

## Writing ---------------------------------------------------------------------------------------

sections <- list(
  coefficient_tables = tables, anova = anovas, contrasts = contrasts_tested,
  profile_intervals = intervals, wald_intervals = wald_intervals, profile_curves = curves,
  variance_components = components, comparisons = comparisons, dropped_terms = drops,
  criteria = criteria, simulated_tests = simulated_tests, diagnostics = diagnostics,
  deletions = deletions, simulations = simulations, variance_shares = shares,
  conditional_aic = conditional_aics, other_responses = other_responses
)
used <- mget(sort(ls(fits), method = "radix"), fits)
used <- Filter(function(f) !is.null(f$model), used)
all_sections <- c(list(models = lapply(used, model_entry)), sections)
write_section <- function(name) {
  entries <- paste(vapply(all_sections[[name]], one_line_per_key, ""), collapse = ",\n")
  paste0(' "', name, '": [\n', entries, " ]")
}
versions <- versions_of("lme4", "lmerTest", "pbkrtest", "RLRsim", "merTools", "arm", "numDeriv")
writeLines(c("{", paste0(' "versions": ', to_json(versions), ","),
             paste(vapply(names(all_sections), write_section, ""), collapse = ",\n"), "}"),
           "tests/reference/inference.json")
section("done")

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

## Coefficient tables -----------------------------------------------------------------------------

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

# The degrees of freedom with derivatives taken in standardised parameters: how far lmerTest's own
# are from what they approximate.
precise_df <- function(f) {
  fit <- f$fit
  at <- c(getME(fit, "theta"), sigma(fit))
  deviance <- function(x) lmerTest:::devfun_vp(x, f$evaluate, f$reml)
  rough <- numDeriv::hessian(deviance, at, method.args = list(d = 0.01))
  spectrum <- eigen(rough, symmetric = TRUE)
  scale <- spectrum$vectors %*% diag(1 / sqrt(spectrum$values), length(at))
  # numDeriv's steps are relative: around u = 1 they are a tenth of a standard error and less.
  parameters <- function(u) at + drop(scale %*% (4 * (u - 1)))
  ones <- rep(1, length(at))
  wide <- list(d = 0.03, r = 5)
  hessian <- numDeriv::hessian(function(u) deviance(parameters(u)), ones, method.args = wide)
  jacobian <- numDeriv::jacobian(function(u) {
    diag(as.matrix(lmerTest:::get_covbeta(parameters(u), f$evaluate)))
  }, ones, method.args = wide)
  variances <- diag(as.matrix(vcov(fit)))
  2 * variances^2 / rowSums(jacobian %*% solve(hessian / 2) * jacobian)
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

## F tests ----------------------------------------------------------------------------------------

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

## Profiles ---------------------------------------------------------------------------------------

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

## Writing ----------------------------------------------------------------------------------------

sections <- list(coefficient_tables = tables, anova = anovas, contrasts = contrasts_tested,
                 profile_intervals = intervals, wald_intervals = wald_intervals)
used <- mget(sort(ls(fits), method = "radix"), fits)
used <- Filter(function(f) !is.null(f$model), used)
all_sections <- c(list(models = lapply(used, model_entry)), sections)
write_section <- function(name) {
  entries <- paste(vapply(all_sections[[name]], one_line_per_key, ""), collapse = ",\n")
  paste0(' "', name, '": [\n', entries, " ]")
}
versions <- versions_of("lme4", "lmerTest", "pbkrtest", "numDeriv")
writeLines(c("{", paste0(' "versions": ', to_json(versions), ","),
             paste(vapply(names(all_sections), write_section, ""), collapse = ",\n"), "}"),
           "tests/reference/inference.json")
section("done")

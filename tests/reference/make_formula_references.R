# Writes formula.json: what lme4 and lmerTest say about models with categorical variables, given by
# formulas.
#
#     Rscript tests/reference/make_formula_references.R   (from the root of the repository)
#
# Every model is fitted by REML with treatment contrasts. For the marginal (type III) hypotheses it
# is fitted once more with contrasts that sum to zero: the same model, whose Wald statistics of the
# coefficients of each term are written as F. lmerTest's anova(type = 3) must give the same, or the
# script stops, except for the models marked `incomplete`: where the intercept or a margin of an
# interaction is left out, lmerTest tests coefficients of treatment contrasts.

suppressPackageStartupMessages({
  library(lme4)
  library(lmerTest)
})
library(splines)
source("tests/reference/common.R")

tight <- lmerControl(optimizer = "nloptwrap", calc.derivs = FALSE, check.conv.singular = "ignore",
                     optCtrl = list(xtol_abs = 1e-13, ftol_abs = 1e-14, maxeval = 20000))

finer <- lmerControl(optimizer = "bobyqa", calc.derivs = FALSE, check.conv.singular = "ignore",
                     optCtrl = list(rhobeg = 1e-3, rhoend = 1e-10, maxfun = 20000))

## Data made up here ----------------------------------------------------------------------------

# Machines tried by workers in shifts, unbalanced, every cell of machine and shift filled. Machines
# differ between workers.
machines_data <- function() {
  set.seed(7)
  cells <- expand.grid(worker = 1:12, machine = c("A", "B", "C"), shift = c("day", "late", "night"),
                       run = 1:2, stringsAsFactors = FALSE)
  cells <- cells[sort(sample(nrow(cells), 190)), ]
  n <- nrow(cells)
  x <- round(runif(n, 1, 9), 1)
  machine <- match(cells$machine, c("A", "B", "C"))
  of_workers <- matrix(rnorm(36), 12) %*% chol(matrix(c(6, 2, 1, 2, 9, 2, 1, 2, 12), 3))
  slopes <- rnorm(12, sd = 0.5)
  cell <- rnorm(36, sd = 1.2)[3 * (cells$worker - 1) + match(cells$shift, unique(cells$shift))]
  y <- 50 + c(0, 3, 7)[machine] + 0.8 * x + c(0, 0.3, -0.4)[machine] * x +
    (cells$shift == "night") * 2 + of_workers[cbind(cells$worker, machine)] +
    slopes[cells$worker] * (x - 5) + cell + rnorm(n)
  data.frame(worker = cells$worker, machine = cells$machine, shift = cells$shift, x = x,
             y = round(y, 2))
}
frame <- machines_data()
stopifnot(table(frame$machine, frame$shift) > 0)

## The models -----------------------------------------------------------------------------------

# The formulas of R, and ours where they differ.
models <- list(
  list(r = "y ~ machine + (0 + machine | worker)"),
  list(r = "y ~ machine + (machine | worker)"),
  list(r = "y ~ machine + (0 + machine | worker) + (1 | worker:shift)"),
  list(r = "y ~ machine + (0 + x | worker) + (machine | worker)"),
  list(r = "y ~ machine + (machine || worker)"),
  list(r = "y ~ machine * shift + (1 | worker)"),
  list(r = "y ~ machine * shift * x + (1 | worker/shift)"),
  list(r = "y ~ 0 + machine + shift + (1 | worker)", incomplete = TRUE),
  list(r = "y ~ x + machine:x + (1 | worker)", incomplete = TRUE),
  list(r = "y ~ machine + machine:x + (1 | worker)"),
  list(r = "y ~ shift + shift:machine + (1 | worker)", incomplete = TRUE),
  list(r = "y ~ poly(x, 2) * machine + (1 | worker)"),
  list(r = "y ~ bs(x, df = 4) + shift + (1 | worker)"),
  list(r = "y ~ x + I(x^2) + machine + (x || worker)",
       ours = "y ~ x + I(x**2) + machine + (x || worker)"),
  list(r = "log(y) ~ machine + scale(x) + (1 | worker)"),
  list(r = "y ~ (machine + shift + x)^2 + (1 + x | worker)"),
  list(r = "y ~ 0 + x * machine + (1 | worker)")
)

## What is written ------------------------------------------------------------------------------

fit_with <- function(formula, contrasts) {
  options(contrasts = c(contrasts, "contr.poly"))
  on.exit(options(contrasts = c("contr.treatment", "contr.poly")))
  fit <- lmerTest::lmer(as.formula(formula), frame, control = tight)
  for (repetition in 1:2) fit <- update(fit, start = getME(fit, "theta"), control = finer)
  fit
}

wald <- function(fit) {
  of_term <- attr(getME(fit, "X"), "assign")
  if (is.null(of_term)) of_term <- attr(model.matrix(fit), "assign")
  names <- attr(terms(fit), "term.labels")
  beta <- fixef(fit)
  V <- as.matrix(vcov(fit))
  lapply(setNames(seq_along(names), names), function(k) {
    own <- which(of_term == k)
    list(df = length(own),
         F = drop(beta[own] %*% solve(V[own, own, drop = FALSE], beta[own])) / length(own))
  })
}

entries <- lapply(models, function(m) {
  fit <- fit_with(m$r, "contr.treatment")
  by_sums <- wald(fit_with(m$r, "contr.sum"))
  by_lmertest <- anova(fit, type = 3, ddf = "Satterthwaite")
  stopifnot(setequal(rownames(by_lmertest), names(by_sums)))
  difference <- max(abs(by_lmertest[names(by_sums), "F value"] /
                          vapply(by_sums, function(term) term$F, 0) - 1))
  same_df <- all(by_lmertest[names(by_sums), "NumDF"] == vapply(by_sums, function(t) t$df, 0))
  message(sprintf("%-60s %.8f  lmerTest differs by %.1e %s", m$r, criterion_of(fit, TRUE),
                  difference, if (same_df) "" else "(other df)"))
  stopifnot(same_df, isTRUE(m$incomplete) == (difference > 1e-5))
  list(
    formula = if (is.null(m$ours)) m$r else m$ours,
    formula_in_R = m$r,
    criterion = criterion_of(fit, TRUE),
    coef_names = as.list(names(fixef(fit))),
    coef = as.list(unname(fixef(fit))),
    noise_variance = sigma(fit)^2,
    terms = by_sums
  )
})

writeLines(c("{", paste0(' "versions": ', to_json(versions_of("lme4", "lmerTest")), ","),
             paste0(' "data":\n', one_line_per_key(lapply(frame, as.list)), ","), ' "models": [',
             paste(vapply(entries, one_line_per_key, ""), collapse = ",\n"), " ]", "}"),
           "tests/reference/formula.json")

# The models of make_inference.R and their fits. Sourced from the root of the repository, after
# common.R.

options(contrasts = c("contr.treatment", "contr.poly"))

## The unbalanced crossed data -------------------------------------------------------------------

# Two factors crossed at random, levels of very different size, some cells empty. x is constant
# within the levels of a, z and the factor g vary from row to row. Rounded, and the fits see the
# rounded numbers.
unbalanced_crossed <- function() {
  set.seed(17)
  n <- 110
  a <- c(1:12, sample(12, n - 12, replace = TRUE, prob = (1:12)^1.5))
  b <- c(sample(9), sample(9, n - 9, replace = TRUE, prob = c(1, 1, 1, 2, 2, 4, 5, 8, 9)))
  x_of_a <- round(runif(12, 0, 5), 1)
  z <- round(rnorm(n, 1), 2)
  g <- sample(3, n, replace = TRUE, prob = c(5, 3, 2))
  of_a <- matrix(rnorm(24), 12) %*% chol(matrix(c(2.2, 0.5, 0.5, 0.5), 2))
  of_b <- rnorm(9, sd = 1.3)
  y <- 20 + 0.6 * x_of_a[a] - 0.8 * z + c(0, 0.7, 1.2)[g] + of_a[a, 1] + of_a[a, 2] * z + of_b[b] +
    rnorm(n, sd = 1.5)
  data.frame(a = sprintf("a%02d", a), b = paste0("b", b), x = x_of_a[a], z = z,
             g = c("p", "q", "r")[g], y = round(y, 2))
}
crossed_file <- "unbalanced_crossed.csv"

## The models ------------------------------------------------------------------------------------

# Expressions that are R and pandas at once: the treatment coding of a factor, and products.
coded <- function(column, levels) {
  setNames(sprintf("(%s == '%s') * 1.0", column, levels), paste0(column, levels))
}
products <- function(left, right) {
  pairs <- expand.grid(l = left, r = right, stringsAsFactors = FALSE)
  setNames(sprintf("%s * %s", pairs$l, pairs$r), paste(pairs$l, pairs$r, sep = "_"))
}
recipes <- coded("recipe", c("B", "C"))
temperatures <- coded("temperature", seq(185, 225, 10))
cake_by_temp <- c(recipes, products(names(recipes), "temp"))
cake_by_temperature <- c(recipes, temperatures, products(names(recipes), names(temperatures)))
kinds <- coded("g", c("q", "r"))

# groups: by the factor's name, in the order of the formula, its columns (the name's own if NULL).
# The other arguments by factor only where they are not the default. drop: which rows to leave out,
# an R expression in the columns and `row`, the number of the row from 1. search: where lme4's
# optimisers need it, the random effects in other units, by their expressions, and the matrix that
# turns them into those of the formula.
model <- function(id, source, formula, groups, fixed = character(), derived = character(),
                  slopes = list(), diagonal = character(), categorical = character(),
                  weighted = FALSE, drop = NULL, search = NULL) {
  as.list(environment())
}
crossed_model <- function(id, ...) {
  model(id, crossed_file, ..., groups = list(a = "a", b = "b"), categorical = "g")
}
cake_model <- function(id, ...) {
  model(id, "cake", ..., groups = list("recipe:replicate" = c("recipe", "replicate")),
        categorical = c("recipe", "temperature"))
}
on_subjects <- list(Subject = "Subject")
some_cakes <- quote(row %% 7 == 0 | (recipe == "B" & temp >= 215 & replicate <= 5))

models <- list(
  model("sleepstudy-slope", "sleepstudy", "Reaction ~ Days + (1 + Days | Subject)", on_subjects,
        "Days", slopes = list(Subject = "Days")),
  model("sleepstudy-slope-diagonal", "sleepstudy", "Reaction ~ Days + (1 + Days || Subject)",
        on_subjects, "Days", slopes = list(Subject = "Days"), diagonal = "Subject"),
  model("sleepstudy-slope-weighted", "sleepstudy", "Reaction ~ Days + (1 + Days | Subject)",
        on_subjects, "Days", slopes = list(Subject = "Days"), weighted = TRUE),
  model("sleepstudy-slope-without-fixed", "sleepstudy", "Reaction ~ 1 + (1 + Days | Subject)",
        on_subjects, slopes = list(Subject = "Days")),
  model("sleepstudy-intercept", "sleepstudy", "Reaction ~ Days + (1 | Subject)", on_subjects,
        "Days"),
  model("sleepstudy-mean", "sleepstudy", "Reaction ~ 1 + (1 | Subject)", on_subjects),
  cake_model("cake-plus-temp", "angle ~ recipe + temp + (1 | recipe:replicate)",
             fixed = c(names(recipes), "temp"), derived = recipes),
  cake_model("cake-by-temp", "angle ~ recipe * temp + (1 | recipe:replicate)",
             fixed = append(names(cake_by_temp), "temp", 2), derived = cake_by_temp),
  cake_model("cake-by-temperature", "angle ~ recipe * temperature + (1 | recipe:replicate)",
             fixed = names(cake_by_temperature), derived = cake_by_temperature),
  cake_model("cake-plus-temperature", "angle ~ recipe + temperature + (1 | recipe:replicate)",
             fixed = names(c(recipes, temperatures)), derived = c(recipes, temperatures)),
  cake_model("cake-unbalanced-by-temp", "angle ~ recipe * temp + (1 | recipe:replicate)",
             fixed = append(names(cake_by_temp), "temp", 2), derived = cake_by_temp,
             drop = some_cakes),
  cake_model("cake-unbalanced-by-temperature",
             "angle ~ recipe * temperature + (1 | recipe:replicate)",
             fixed = names(cake_by_temperature), derived = cake_by_temperature,
             drop = some_cakes),
  model("pastes", "pastes", "strength ~ 1 + (1 | batch) + (1 | batch:cask)",
        list(batch = "batch", "batch:cask" = c("batch", "cask"))),
  model("penicillin", "penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)",
        list(plate = "plate", sample = "sample")),
  model("dietox-slope", "dietox", "Weight ~ Time + (1 + Time | Pig)", list(Pig = "Pig"), "Time",
        slopes = list(Pig = "Time")),
  model("dietox-covariates", "dietox", "Weight ~ Start + Time + (1 + Time | Pig)",
        list(Pig = "Pig"), c("Start", "Time"), slopes = list(Pig = "Time")),
  model("sitka-slope", "sitka", "size ~ Time + (1 + Time | tree)", list(tree = "tree"), "Time",
        slopes = list(tree = "Time"),
        search = list(formula = "size ~ Time + (1 + I((Time - 200) / 40) | tree)",
                      to_user = matrix(c(1, 0, -5, 1 / 40), 2))),
  model("dyestuff", "dyestuff", "Yield ~ 1 + (1 | Batch)", list(Batch = "Batch")),
  model("dyestuff2", "dyestuff2", "Yield ~ 1 + (1 | Batch)", list(Batch = "Batch")),
  crossed_model("crossed", "y ~ x + z + (1 | a) + (1 | b)", fixed = c("x", "z")),
  crossed_model("crossed-interaction", "y ~ x * g + z + (1 | a) + (1 | b)",
                fixed = c("x", names(kinds), "z", names(products("x", names(kinds)))),
                derived = c(kinds, products("x", names(kinds)))),
  crossed_model("crossed-slope", "y ~ x + z + (1 + z | a) + (1 | b)", fixed = c("x", "z"),
                slopes = list(a = "z"))
)
names(models) <- vapply(models, `[[`, "", "id")

read_data <- function(m) {
  folder <- if (m$source == crossed_file) "tests/reference" else data_dir
  path <- file.path(folder, paste0(sub(".csv", "", m$source, fixed = TRUE), ".csv"))
  frame <- read.csv(path, stringsAsFactors = FALSE)
  for (name in names(m$derived)) frame[[name]] <- eval(parse(text = m$derived[[name]]), frame)
  frame$.w <- if (m$weighted) 1 + seq_len(nrow(frame)) %% 3 else rep(1, nrow(frame))
  frame$.row <- seq_len(nrow(frame))
  if (!is.null(m$drop)) frame <- frame[!eval(m$drop, c(frame, list(row = frame$.row))), ]
  # The C collation, so that the order of the levels does not depend on the locale.
  for (name in unique(c(unlist(m$groups), intersect(m$categorical, names(frame))))) {
    frame[[name]] <- factor(frame[[name]], levels = sort(unique(frame[[name]]), method = "radix"))
  }
  frame
}

## The fits --------------------------------------------------------------------------------------

response_of <- function(formula) all.vars(as.formula(formula))[1]

# theta at the optimum, from where lme4 stops when left alone.
find_theta <- function(formula, frame, reml) {
  by_default <- suppressWarnings(suppressMessages(
    lme4::lmer(as.formula(formula), frame, weights = .w, REML = reml)))
  d <- deviance_function(formula, frame, reml)
  on_diagonal <- d$parsed$reTrms$lower == 0
  starts <- list(getME(by_default, "theta"), as.numeric(on_diagonal))
  best <- minimise(d$evaluate, length(on_diagonal), on_diagonal, starts, 1)
  c(best, list(by_default = criterion_of(by_default, reml)))
}

# The lower triangular root of L L'.
lower_root <- function(L) {
  if (nrow(L) == 1) return(abs(L))
  if (nrow(L) == 2) {
    r <- sqrt(sum(L[1, ]^2))
    if (r == 0) return(matrix(c(0, 0, 0, sqrt(sum(L[2, ]^2))), 2))
    return(matrix(c(r, sum(L[1, ] * L[2, ]) / r, 0, abs(det(L)) / r), 2))
  }
  R <- qr.R(qr(t(L), tol = 0))
  t(R * sign(diag(R)))
}

# The fit at the optimum. `evaluate` is a deviance function of its own, as its calls change the
# object that it belongs to.
fit_formula <- function(formula, frame, reml, search = NULL) {
  if (is.null(search)) {
    optimum <- find_theta(formula, frame, reml)
  } else {
    optimum <- find_theta(search$formula, frame, reml)
    L <- lower_root(search$to_user %*% to_lambda(optimum$par, nrow(search$to_user)))
    optimum$par <- L[lower.tri(L, diag = TRUE)]
  }
  d <- deviance_function(formula, frame, reml)
  value <- d$evaluate(optimum$par)
  fit <- mkMerMod(environment(d$evaluate),
                  list(par = optimum$par, fval = value, feval = 1, conv = 0, message = ""),
                  d$parsed$reTrms, fr = d$parsed$fr,
                  mc = call("lmer", formula = as.formula(formula), data = quote(frame),
                            weights = quote(.w), REML = reml))
  stopifnot(abs(value - optimum$value) < 1e-8, abs(criterion_of(fit, reml) - value) < 1e-8,
            value <= optimum$by_default + 1e-8)
  list(fit = fit, frame = frame, reml = reml, formula = formula, optimum = optimum,
       evaluate = deviance_function(formula, frame, reml)$evaluate)
}

fits <- new.env()
fit_id <- function(id, reml) paste0(id, if (reml) "-reml" else "-ml")
fit_of <- function(id, reml = TRUE) {
  key <- fit_id(id, reml)
  if (is.null(fits[[key]])) {
    set.seed(20)
    m <- models[[id]]
    f <- fit_formula(m$formula, read_data(m), reml, m$search)
    X <- getME(f$fit, "X")
    stopifnot(all.equal(unname(X[, -1, drop = FALSE]), unname(as.matrix(f$frame[m$fixed])),
                        check.attributes = FALSE))
    message(sprintf("%-40s %.8f  lme4's default %+.1e  gradient %.0e", key, f$optimum$value,
                    f$optimum$by_default - f$optimum$value, f$optimum$gradient))
    f$model <- m
    f$key <- key
    assign(key, f, fits)
  }
  fits[[key]]
}
with_satterthwaite <- function(f) {
  suppressWarnings(lmerTest:::as_lmerModLT(f$fit, f$evaluate))
}

## The random effects of a fit -------------------------------------------------------------------

effect_name <- function(name) ifelse(name == "(Intercept)", "intercept", name)

# lme4's blocks of theta in its order: the factor, its effects, the places in theta.
blocks_of <- function(f) {
  names_of <- f$fit@cnms
  sizes <- lengths(names_of)
  ends <- cumsum(sizes * (sizes + 1) / 2)
  Map(function(factor, effects, end) {
    q <- length(effects)
    list(factor = sub("\\.[0-9]+$", "", factor), effects = effect_name(effects), q = q,
         theta = seq(end - q * (q + 1) / 2 + 1, end))
  }, names(names_of), unname(names_of), ends)
}

sd_name <- function(effect, factor) sprintf("sd(%s|%s)", effect, factor)
correlation_name <- function(one, other, factor) sprintf("cor(%s,%s|%s)", one, other, factor)

# The entries of a block's covariance, the lower triangle by columns: (1, 1), (2, 1), (2, 2).
entries_of <- function(block) {
  which(lower.tri(diag(block$q), diag = TRUE), arr.ind = TRUE)
}
covariance_of <- function(block, theta, sigma) {
  sigma^2 * tcrossprod(to_lambda(theta[block$theta], block$q))
}

## Entries ---------------------------------------------------------------------------------------

# NA, which JSON has not, as null.
values <- function(x) lapply(unname(as.vector(x)), function(v) if (is.na(v)) NULL else v)
# A table as lists of its columns, with the names of its rows.
columns_as <- function(table, names) {
  setNames(lapply(seq_along(names), function(j) values(table[[j]])), names)
}

model_entry <- function(f) {
  m <- f$model
  fit <- f$fit
  groups <- m$groups
  by_factor <- function(value) lapply(setNames(nm = names(groups)), value)
  sigma <- sigma(fit)
  X <- getME(fit, "X")
  covariances <- by_factor(function(name) {
    blocks <- Filter(function(block) block$factor == name, blocks_of(f))
    rows(as.matrix(bdiag(lapply(blocks, covariance_of, getME(fit, "theta"), sigma))))
  })
  list(
    id = f$key,
    data_set = if (m$source != crossed_file) m$source,
    data_file = if (m$source == crossed_file) m$source,
    kept_rows = if (!is.null(m$drop)) as.list(f$frame$.row - 1L),
    target = response_of(m$formula),
    formula = m$formula,
    reml = f$reml,
    weights = if (m$weighted) as.list(f$frame$.w),
    derived_columns = if (length(m$derived) > 0) as.list(m$derived),
    groups = lapply(unname(groups), function(g) if (length(g) > 1) as.list(g) else g),
    fixed_effects = as.list(m$fixed),
    terms = as.list(attr(terms(fit), "term.labels")[attr(X, "assign")[-1]]),
    random_slopes = by_factor(function(name) as.list(as.character(m$slopes[[name]]))),
    covariance = by_factor(function(name) if (name %in% m$diagonal) "diagonal" else "full"),
    n_rows = nrow(f$frame),
    criterion = f$optimum$value,
    lme4_default_criterion = f$optimum$by_default,
    max_abs_gradient = f$optimum$gradient,
    coef_names = as.list(colnames(X)),
    coef = values(fixef(fit)),
    coef_covariance = rows(as.matrix(vcov(fit))),
    random_covariances = covariances,
    noise_variance = sigma^2
  )
}

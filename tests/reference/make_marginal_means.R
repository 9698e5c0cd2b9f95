# Writes marginal_means.json: what emmeans says about marginal means, slopes and their comparisons.
#
#     Rscript tests/reference/make_marginal_means.R        (from the root of the repository)

suppressPackageStartupMessages({
  library(lme4)
  library(lmerTest)
  library(nlme)
  library(splines)
  library(emmeans)
  library(mvtnorm)
  library(jsonlite)
})
emm_options(msg.interaction = FALSE, msg.nesting = FALSE)

tight <- lmerControl(calc.derivs = TRUE, optimizer = "nloptwrap",
                     optCtrl = list(xtol_abs = 1e-12, ftol_abs = 1e-13, maxeval = 10000),
                     check.conv.singular = "ignore", check.conv.grad = "ignore")

## Data ------------------------------------------------------------------------------------------

cake <- read.csv("src/mixedlearn/datasets/data/cake.csv")
cake$batch <- paste(cake$recipe, cake$replicate)
cake$temperature <- factor(cake$temperature)

# Two factors and a flag in unbalanced cells, covariates, weights; values are rounded so that the file
# holds them exactly.
set.seed(20)
n <- 240
factorial <- data.frame(
  a = sample(c("p", "q", "r"), n, TRUE, c(0.5, 0.3, 0.2)),
  b = sample(c("high", "low", "mid"), n, TRUE, c(0.2, 0.5, 0.3)),
  flag = runif(n) < 0.3,
  dose = sample(c(1, 2, 5), n, TRUE),
  x = round(rnorm(n, 40, 5), 2),
  z = round(1 + rexp(n), 3),
  w = round(runif(n, 0.5, 3), 2),
  g = paste0("g", sample(1:16, n, TRUE))
)
intercepts <- rnorm(16)
factorial$y <- round(
  10 + match(factorial$a, letters[16:18]) * (factorial$b == "low") + 0.1 * factorial$x *
    (factorial$a == "q") + log(factorial$z) + 0.5 * factorial$flag +
    intercepts[as.integer(sub("g", "", factorial$g))] + rnorm(n) / sqrt(factorial$w), 3)
holed <- factorial[!(factorial$a == "r" & factorial$b == "low"), ]
frames <- list(cake = cake, factorial = factorial, holed = holed)

## What is asked of the fits ---------------------------------------------------------------------

# Nodes and weights of Gauss and Legendre's quadrature on an interval (Golub & Welsch 1969).
legendre <- function(n, ends) {
  k <- seq_len(n - 1)
  jacobi <- matrix(0, n, n)
  jacobi[cbind(k, k + 1)] <- jacobi[cbind(k + 1, k)] <- k / sqrt(4 * k^2 - 1)
  found <- eigen(jacobi, symmetric = TRUE)
  half <- diff(ends) / 2
  list(nodes = mean(ends) + half * found$values, weights = 2 * half * found$vectors[1, ]^2)
}

# P(max |t_i| > t) of a multivariate t distribution with any degrees of freedom: the mean over the
# scale of Miwa's probabilities of boxes.
beyond <- function(t, df, correlation) {
  k <- nrow(correlation)
  box <- function(s) {
    size <- rep(t * s, k)
    1 - pmvnorm(-size, size, corr = correlation, algorithm = Miwa(steps = 256))[[1]]
  }
  if (is.infinite(df)) return(box(1))
  scale <- legendre(48, sqrt(qchisq(c(1e-12, 1 - 1e-12), df) / df))
  density <- 2 * df * scale$nodes * dchisq(df * scale$nodes^2, df)
  sum(scale$weights * density * vapply(scale$nodes, box, 0))
}

exact <- function(contrasts) {
  table <- as.data.frame(contrasts)
  correlation <- cov2cor(vcov(contrasts))
  mapply(beyond, abs(table$t.ratio %||% table$z.ratio), table$df,
         MoreArgs = list(correlation = correlation))
}
`%||%` <- function(a, b) if (is.null(a)) b else a

columns_of <- function(table, names) {
  table <- as.data.frame(table)
  rename <- c(emmean = "estimate", SE = "std_error", lower.CL = "lower", upper.CL = "upper",
              asymp.LCL = "lower", asymp.UCL = "upper", t.ratio = "t_value", z.ratio = "t_value",
              p.value = "p_value")
  for (own in names(rename)) names(table)[names(table) == own] <- rename[[own]]
  names(table) <- sub("^.*\\.trend$", "estimate", names(table))
  keep <- intersect(c("estimate", "std_error", "df", "t_value", "p_value", "lower", "upper"),
                    names(table))
  if (all(is.infinite(table$df[!is.na(table$df)]))) keep <- setdiff(keep, "df")
  lapply(as.list(table[names]), as.character) -> labels
  list(labels = labels, values = as.list(table[keep]))
}

cases <- list()
add <- function(name, means, by, ...) {
  keys <- setdiff(names(as.data.frame(means)),
                  c("emmean", "SE", "df", "lower.CL", "upper.CL", "asymp.LCL", "asymp.UCL",
                    grep("trend", names(as.data.frame(means)), value = TRUE)))
  found <- list(name = name, means = columns_of(summary(means), keys), comparisons = list())
  for (own in list(...)) {
    compared <- contrast(means, own$method, by = by, reverse = isTRUE(own$reverse),
                         ref = own$ref %||% 1)
    table <- summary(compared, infer = TRUE, adjust = own$adjust %||% "none")
    stored <- columns_of(table, c("contrast", by))
    if (isTRUE(own$exact)) {
      stored$values$p_value <- exact(compared)
      stored$values$lower <- stored$values$upper <- NULL
    }
    found$comparisons[[length(found$comparisons) + 1]] <-
      c(list(method = own$name, adjust = own$store %||% own$adjust %||% "none"), stored)
  }
  cases[[length(cases) + 1]] <<- found
}
ask <- function(name, method, adjust = NULL, ...) list(name = name, method = method, adjust = adjust, ...)
tukey <- ask("pairwise", "pairwise", "tukey")
holm <- ask("pairwise", "pairwise", "holm")
bonferroni <- ask("pairwise", "pairwise", "bonferroni")
dunnett <- ask("control", "trt.vs.ctrl", "none", store = "dunnett", exact = TRUE)
consecutive <- ask("consecutive", "consec", "none", store = "mvt", exact = TRUE)
polynomial <- ask("polynomial", "poly")

for (ddf in c("kenward-roger", "satterthwaite")) {
  named <- function(text) paste(text, ddf)
  emm_options(lmer.df = ddf)
  fit <- lmer(angle ~ recipe * temperature + (1 | batch), cake, control = tight)
  add(named("cake recipe"), emmeans(fit, ~recipe), NULL, tukey, holm, bonferroni, dunnett,
      consecutive, polynomial)
  add(named("cake temperature"), emmeans(fit, ~temperature), NULL, tukey, polynomial)
  add(named("cake recipe by temperature"), emmeans(fit, ~recipe | temperature), "temperature", tukey,
      holm)
  fit <- lmer(y ~ a * b + a * x + log(z) + flag + (1 | g), factorial, control = tight)
  add(named("factorial a"), emmeans(fit, ~a), NULL, tukey, holm, bonferroni, dunnett, consecutive)
  add(named("factorial a by b"), emmeans(fit, ~a | b), "b", tukey, polynomial)
  add(named("factorial a, b"), emmeans(fit, ~a + b), NULL, tukey, bonferroni)
  add(named("factorial four"),
      emmeans(fit, ~a + b, at = list(a = c("p", "q"), b = c("low", "mid"))), NULL, dunnett, consecutive)
  add(named("factorial proportional"), emmeans(fit, ~a, weights = "proportional"), NULL, tukey)
  add(named("factorial at"), emmeans(fit, ~a | x, at = list(x = c(35, 45), z = 2, b = c("low", "mid"))),
      "x", tukey)
  add(named("factorial slopes"), emtrends(fit, ~a, var = "x"), NULL, tukey)
  add(named("factorial slopes of a logarithm"),
      emtrends(fit, ~z, var = "z", at = list(z = c(1.5, 3)), delta.var = 1e-7), NULL)
  # pbkrtest takes no notice of weights.
  if (ddf == "satterthwaite") {
    weighted <- lmer(y ~ a * b + x + factor(dose) + (1 | g), factorial, weights = w,
                     control = tight)
    add(named("weighted"), emmeans(weighted, ~a), NULL, tukey)
    add(named("weighted dose"), emmeans(weighted, ~dose), NULL, tukey, polynomial)
    add(named("weighted proportional"), emmeans(weighted, ~b, weights = "proportional"), NULL, tukey)
  }
  hole <- lmer(y ~ a * b + x + (1 | g), holed, control = tight)
  add(named("holed a by b"), emmeans(hole, ~a | b), "b", tukey, holm, bonferroni)
  add(named("holed a"), emmeans(hole, ~a), NULL, tukey)
  curved <- lmer(y ~ b + poly(x, 2) + ns(z, 3) + (1 | g), factorial, control = tight)
  add(named("curved b"), emmeans(curved, ~b), NULL, tukey)
  add(named("curved slopes"),
      emtrends(curved, ~x, var = "x", at = list(x = c(30, 40, 47)), delta.var = 1e-6), NULL)
  add(named("spline slopes"),
      emtrends(curved, ~z, var = "z", at = list(z = c(1.2, 1.7, 3)), delta.var = 1e-7), NULL)
}
of_nlme <- lme(y ~ a * b + x, random = ~ 1 | g, data = factorial,
               control = lmeControl(msTol = 1e-12, tolerance = 1e-12, niterEM = 100))
add("nlme", emmeans(of_nlme, ~a | b, mode = "asymptotic"), "b", tukey, holm)

packages <- c("lme4", "lmerTest", "pbkrtest", "nlme", "emmeans", "mvtnorm")
versions <- c(list(R = as.character(getRversion())),
              lapply(setNames(packages, packages), function(p) as.character(packageVersion(p))))
out <- list(versions = versions, frames = lapply(frames, as.list), cases = cases)
write_json(out, "tests/reference/marginal_means.json", digits = NA, auto_unbox = TRUE, na = "null")

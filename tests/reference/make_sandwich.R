# Writes sandwich.json: what clubSandwich says about mixed models of lme4 and nlme.
#
#     Rscript tests/reference/make_sandwich.R        (from the root of the repository)

suppressPackageStartupMessages({
  library(lme4)
  library(nlme)
  library(clubSandwich)
})
source("tests/reference/common.R")

tight <- lmerControl(calc.derivs = FALSE, optimizer = "nloptwrap",
                     optCtrl = list(xtol_abs = 1e-13, ftol_abs = 1e-14, maxeval = 10000),
                     check.conv.singular = "ignore", check.conv.grad = "ignore")
data(sleepstudy, package = "lme4")
data(cake, package = "lme4")
data(Dyestuff2, package = "lme4")
data(Pastes, package = "lme4")
# Columns that the data sets do not have; the tests make the same.
sleepstudy$z <- rep_len(c(0, 1, 3, -2, 1, 0, 2), 180)
sleepstudy$w <- rep_len(c(1, 2, 0.5, 3, 1.5), 180)
sleepstudy$alone <- as.numeric(sleepstudy$Subject == "308")
sleepstudy$half <- rep(c("a", "b"), each = 90)
cake$temperature <- factor(cake$temperature, ordered = FALSE)
Pastes$z <- rep_len(c(0, 1, 3, -2, 1, 0, 2), 60)
# Subjects with one row, two rows, ...
uneven <- sleepstudy[sleepstudy$Days < rep_len(c(1, 2, 10, 5, 7), 18)[sleepstudy$Subject], ]
frames <- list(sleepstudy = sleepstudy, uneven = uneven, cake = cake, dyestuff2 = Dyestuff2,
               pastes = Pastes)

# lmer with Newton steps from where its optimiser stopped, so that the optimum has ten digits.
polished <- function(formula, frame) {
  model <- lmer(formula, frame, control = tight)
  parsed <- lFormula(formula, frame, control = tight)
  evaluate <- do.call(mkLmerDevfun, c(parsed, list(control = tight)))
  theta <- getME(model, "theta")
  inner <- which(theta > 1e-6 | getME(model, "lower") < 0)
  theta[-inner] <- 0 * theta[-inner]
  along <- function(x) evaluate(replace(theta, inner, x))
  for (iteration in seq_len(4 * (length(inner) > 0))) {
    gradient <- numDeriv::grad(along, theta[inner], method.args = list(d = 0.02, r = 6, eps = 0.01))
    hessian <- numDeriv::hessian(along, theta[inner], method.args = list(d = 0.02, eps = 0.01))
    theta[inner] <- theta[inner] - solve(hessian, gradient)
  }
  value <- evaluate(theta)
  stopifnot(value < REMLcrit(model) + 1e-8)
  mkMerMod(environment(evaluate), list(par = theta, fval = value, feval = 1, conv = 0,
                                       message = ""), parsed$reTrms, fr = parsed$fr,
           mc = quote(lmer()))
}

# data, formula, clusters (an expression of the columns)
cases <- list(
  list("sleepstudy", "Reaction ~ Days + z + (1 | Subject)", "Subject"),
  list("uneven", "Reaction ~ Days + z + (1 + Days | Subject)", "Subject"),
  list("uneven", "Reaction ~ Days * z + (1 | Subject)", "Subject"),
  list("sleepstudy", "Reaction ~ Days + alone + (1 | Subject)", "Subject"),
  list("sleepstudy", "Reaction ~ Days + z + (1 + Days | Subject)", "half"),
  list("cake", "angle ~ recipe * temperature + (1 | recipe:replicate)", "paste(recipe, replicate)"),
  list("cake", "angle ~ recipe * temperature + (1 | recipe:replicate)", "replicate"),
  list("dyestuff2", "Yield ~ 1 + (1 | Batch)", "Batch"),
  list("pastes", "strength ~ z + (1 | batch/cask)", "batch")
)
types <- c("CR0", "CR1", "CR1p", "CR1S", "CR2")

describe <- function(model, cluster, label, case) {
  found <- list()
  p <- length(coef_names(model))
  for (type in types) {
    m <- length(unique(cluster))
    if (type == "CR1p" && m <= p) next
    vcov <- vcovCR(model, cluster = cluster, type = type)
    test <- coef_test(model, vcov = vcov, test = "Satterthwaite")
    entry <- list(covariance = rows(as.matrix(vcov)), df = as.list(test$df_Satt))
    # The first rows that can be tested together, up to all but the intercept.
    q <- min(p - 1, 4)
    if (q > 1 && m > 6) {
      C <- diag(p)[1 + seq_len(q), , drop = FALSE]
      wald <- Wald_test(model, constraints = C, vcov = vcov, test = "HTZ")
      entry$wald <- list(q = q, f = wald$Fstat, df = wald$df_denom)
    }
    found[[type]] <- entry
  }
  list(data = case[[1]], formula = case[[2]], cluster = case[[3]], fitted_by = label,
       coef = as.list(unname(coef_names(model, TRUE))), types = found)
}
coef_names <- function(model, values = FALSE) {
  coef <- lme4::fixef(model)
  if (values) coef else names(coef)
}

entries <- lapply(cases, function(case) {
  frame <- frames[[case[[1]]]]
  assign("frame", frame, globalenv())
  model <- suppressMessages(suppressWarnings(polished(as.formula(case[[2]]), frame)))
  cluster <- factor(eval(parse(text = case[[3]]), frame))
  describe(model, cluster, "lmer", case)
})

# Weights: clubSandwich takes none of lme4's, and nlme's as variances.
control <- lmeControl(msTol = 1e-13, tolerance = 1e-11, msMaxIter = 1000, maxIter = 1000,
                      niterEM = 100, opt = "optim", optimMethod = "BFGS", reltol = 1e-15)
weighted <- lme(Reaction ~ Days + z, random = ~ Days | Subject, weights = varFixed(~ I(1 / w)),
                data = uneven, control = control)
entries <- c(entries, list(describe(weighted, factor(uneven$Subject), "lme", list(
  "uneven", "Reaction ~ Days + z + (1 + Days | Subject)", "Subject"))))

# Residual structures. gls and lme stop short of ten digits, by which the tests hold less here.
read <- function(name) read.csv(file.path(data_dir, paste0(name, ".csv")))
ovary <- read("ovary")
orthodont <- read("orthodont")
dialyzer <- read("dialyzer")
orthodont$trio <- (seq_len(nrow(orthodont)) - 1) %/% 12
orthodont$Sex <- factor(orthodont$Sex, c("Male", "Female"))
dialyzer$QB <- factor(dialyzer$QB)
waves <- follicles ~ sin(2 * pi * Time) + cos(2 * pi * Time)
growth <- distance ~ age * Sex
flow <- rate ~ (pressure + I(pressure^2) + I(pressure^3)) * QB
precise <- glsControl(tolerance = 1e-10, msTol = 1e-14, maxIter = 200, msMaxIter = 500)
precise_lme <- lmeControl(tolerance = 1e-10, msTol = 1e-14, maxIter = 200, msMaxIter = 500)
structured <- list(
  ovary_gls = gls(waves, ovary, correlation = corAR1(form = ~ Day | Mare), control = precise),
  ovary_lme = lme(waves, ovary, random = ~ 1 | Mare, correlation = corAR1(form = ~ Day | Mare),
                  control = precise_lme),
  orthodont_symmetric = gls(growth, orthodont, correlation = corSymm(form = ~ 1 | Subject),
                            weights = varIdent(form = ~ 1 | age), control = precise),
  orthodont_compound = gls(growth, orthodont, correlation = corCompSymm(form = ~ 1 | Subject),
                           control = precise),
  orthodont_strata = lme(growth, orthodont, random = ~ 1 | Subject,
                         weights = varIdent(form = ~ 1 | Sex), control = precise_lme),
  dialyzer_power = gls(flow, dialyzer, correlation = corAR1(form = ~ index | Subject),
                       weights = varPower(form = ~ pressure), control = precise)
)
series <- list(ovary = ovary$Mare, orthodont = orthodont$Subject, dialyzer = dialyzer$Subject)
describe_structured <- function(name, model, cluster, label) {
  found <- describe(model, factor(cluster), class(model), list(name, deparse1(formula(model)), label))
  found$name <- name
  found
}
coef_names <- function(model, values = FALSE) {
  coef <- if (inherits(model, "gls")) coef(model) else nlme::fixef(model)
  if (values) coef else names(coef)
}
structured_entries <- unname(Map(function(name, model) {
  describe_structured(name, model, series[[sub("_.*", "", name)]], "series")
}, names(structured), structured))
for (name in c("orthodont_symmetric", "orthodont_strata")) {
  structured_entries <- c(structured_entries, list(
    describe_structured(name, structured[[name]], orthodont$trio, "trio")))
}

text <- to_json(list(versions = versions_of("lme4", "nlme", "clubSandwich"), models = entries,
                     structured = structured_entries))
writeLines(gsub('}, {"data"', '},\n{"data"', text, fixed = TRUE), "tests/reference/sandwich.json")

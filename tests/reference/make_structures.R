# Reference fits of structured covariances of random effects, for tests/covariance.
#
#     Rscript tests/reference/make_structures.R   (from the root of the repository)
#
# nlme's pdCompSymm and homogeneous compound symmetry, glmmTMB's cs() (a variance for each effect)
# and ar1() (one variance). Both optimise on unbounded scales, so the data are such that no
# correlation is at its end.

suppressPackageStartupMessages({
  library(nlme)
  library(glmmTMB)
  library(jsonlite)
})

machines <- as.data.frame(nlme::Machines)
machines <- data.frame(
  worker = as.character(machines$Worker), machine = as.character(machines$Machine),
  score = machines$score
)
# The days of the sleep study by twos: five occasions of two rows each.
sleep <- as.data.frame(lme4::sleepstudy)
sleep <- data.frame(
  subject = as.character(sleep$Subject), days = sleep$Days, reaction = sleep$Reaction,
  occasion = paste0("o", sleep$Days %/% 2)
)
# Some rows are missing, so that nothing is balanced.
sleep <- sleep[-c(3, 18, 19, 40, 77, 78, 101, 160), ]
data <- list(machines = machines, sleep = sleep)

tight <- glmmTMBControl(optCtrl = list(iter.max = 1e4, eval.max = 1e4, rel.tol = 1e-12))

of_lme <- function(id, covariance, formula, data_name, random, reml) {
  fit <- lme(formula, data = data[[data_name]], random = random, method = if (reml) "REML" else "ML",
             control = lmeControl(msTol = 1e-14, tolerance = 1e-12, niterEM = 200, msMaxIter = 500,
                                  returnObject = TRUE))
  D <- as.matrix(pdMatrix(fit$modelStruct$reStruct[[1]])) * fit$sigma^2
  entry(id, "nlme", covariance, data_name, reml, -2 * as.numeric(logLik(fit)), D, fit$sigma^2,
        fixef(fit))
}

# The optimiser stops on function values: Newton steps with TMB's gradient give the other digits.
refined <- function(fit) {
  obj <- fit$obj
  par <- fit$fit$par
  for (step in 1:6) par <- par - solve(optimHess(par, obj$fn, obj$gr), as.numeric(obj$gr(par)))
  value <- obj$fn(par)
  last <- obj$env$last.par
  report <- obj$report(last)
  list(criterion = 2 * as.numeric(value), sd = report$sd[[1]], correlation = report$corr[[1]],
       noise = exp(as.numeric(last[names(last) == "betad"])),
       coef = as.numeric(last[names(last) == "beta"]))
}

of_glmmTMB <- function(id, covariance, formula, data_name, reml) {
  found <- refined(suppressWarnings(
    glmmTMB(formula, data = data[[data_name]], REML = reml, control = tight)
  ))
  q <- nlevels(data[[data_name]][[if (data_name == "sleep") "occasion" else "machine"]])
  sd <- rep_len(found$sd, q)
  correlation <- found$correlation
  # ar1() may report one neighbour alone.
  if (covariance == "ar1") correlation <- correlation[2, 1]^abs(outer(1:q, 1:q, "-"))
  entry(id, "glmmTMB", covariance, data_name, reml, found$criterion,
        outer(sd, sd) * correlation, found$noise, found$coef)
}

entry <- function(id, by, covariance, data_name, reml, criterion, D, noise, coef) {
  list(id = unbox(id), by = unbox(by), covariance = unbox(covariance), data = unbox(data_name),
       reml = unbox(reml), criterion = unbox(criterion), random_covariance = unname(D),
       noise_variance = unbox(noise), coef = unname(coef))
}

sleep$occasion <- factor(sleep$occasion)
machines$machine <- factor(machines$machine)
data <- list(machines = machines, sleep = sleep)
models <- list()
for (reml in c(TRUE, FALSE)) {
  models <- c(models, list(
    of_lme("machines cs", "compound_symmetry", score ~ machine, "machines",
           list(worker = pdCompSymm(~ 0 + machine)), reml),
    of_lme("sleep cs", "compound_symmetry", reaction ~ days, "sleep",
           list(subject = pdCompSymm(~ 0 + occasion)), reml),
    of_glmmTMB("machines hcs", "heterogeneous_compound_symmetry",
               score ~ machine + cs(0 + machine | worker), "machines", reml),
    of_glmmTMB("sleep hcs", "heterogeneous_compound_symmetry",
               reaction ~ days + cs(0 + occasion | subject), "sleep", reml),
    of_glmmTMB("sleep ar1", "ar1", reaction ~ days + ar1(0 + occasion | subject), "sleep", reml)
  ))
}

versions <- list(
  R = unbox(R.version.string), nlme = unbox(as.character(packageVersion("nlme"))),
  glmmTMB = unbox(as.character(packageVersion("glmmTMB")))
)
plain <- lapply(data, function(own) lapply(own, function(x) if (is.factor(x)) as.character(x) else x))
write(toJSON(list(versions = versions, data = plain, models = models), digits = 12, pretty = FALSE),
      "tests/reference/structures.json")

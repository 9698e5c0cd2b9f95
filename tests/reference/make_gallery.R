# Writes gallery_schools.json: what R says about the pupils of the gallery's pages extroversion and
# pupils_in_classrooms, which generate them. README.md beside this file describes every field.
#
#     Rscript tests/reference/make_gallery.R        (from the root of the repository)
#
# The pages are run by the Python that the environment variable PYTHON names, or by python3.

suppressPackageStartupMessages({
  library(lme4)
  library(lmerTest)
  library(RLRsim)
  library(merTools)
})
source("tests/reference/common.R")

precise <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-10, maxfun = 1e5))
fit <- function(formula, data) lmerTest::lmer(as.formula(formula), data, control = precise)
named <- function(x) setNames(as.list(unname(x)), names(x))

coefficients_of <- function(model) {
  table <- coef(summary(model))
  lapply(setNames(rownames(table), rownames(table)), function(name) {
    row <- as.list(unname(table[name, ]))
    if (length(row) == 4) row <- c(row[1:2], df.residual(model), row[3:4])
    setNames(row, c("estimate", "std_error", "df", "t", "p"))
  })
}

mixed <- function(model) {
  variances <- as.data.frame(VarCorr(model))
  is_sd <- is.na(variances$var2)
  where <- paste0(ifelse(is.na(variances$var1), "", variances$var1), "|", variances$grp)
  list(log_likelihood = as.numeric(logLik(model)), aic = AIC(model),
       sd = named(setNames(variances$sdcor[is_sd], where[is_sd])),
       coefficients = coefficients_of(model))
}

exact <- function(test) list(statistic = unname(test$statistic), p_value = test$p.value)

## Extroversion ----------------------------------------------------------------------------------

pupils <- generated("extroversion", "pupils")
fixed <- "extro ~ open + agree + social"
of_class <- "extro ~ open + agree + social_z"
least_squares <- lapply(c("", " + class", " + school", " + school:class"),
                        function(terms) glm(as.formula(paste0(fixed, terms)), data = pupils))
by_school <- fit(paste(fixed, "+ (1 | school)"), pupils)
crossed <- fit(paste(fixed, "+ (1 | school) + (1 | class)"), pupils)
nested <- fit(paste(fixed, "+ (1 | school/class)"), pupils)
by_engagement <- fit(
  paste(of_class, "+ (1 | school) + (1 + social_z | school:class)"), pupils)
uncorrelated <- fit(
  paste(of_class, "+ (1 | school) + (1 + social_z || school:class)"), pupils)

effects <- ranef(by_school, condVar = TRUE)$school
f_test <- anova(lm(as.formula(fixed), pupils), lm(as.formula(paste0(fixed, " + school")), pupils))
limits <- suppressMessages(confint(by_school, level = 0.99))
rownames(limits)[1:2] <- c("sd(intercept|school)", "sd(noise)")
comparison <- anova(by_school, nested, refit = TRUE)
set.seed(1)
drawn <- REsim(by_school, n.sims = 5000)
grid <- merge(pupils[1, c("open", "agree", "social")], data.frame(school = levels(pupils$school)))
intervals <- function(corrected) {
  found <- predictInterval(by_school, grid, level = 0.95, n.sims = 20000, seed = 1,
                           fix.intercept.variance = corrected)
  list(fit = as.list(found$fit), upper = as.list(found$upr), lower = as.list(found$lwr))
}

extroversion <- list(
  data = named(colMeans(pupils[c("extro", "open", "agree", "social")])),
  least_squares_aic = lapply(least_squares, AIC),
  school_f_test = list(f = f_test$F[2], num_df = f_test$Df[2], den_df = f_test$Res.Df[2]),
  models = list(by_school = mixed(by_school), crossed = mixed(crossed), nested = mixed(nested),
                by_engagement = mixed(by_engagement)),
  comparison = list(chi2 = comparison$Chisq[2], df = comparison$Df[2]),
  profile_99 = lapply(setNames(rownames(limits), rownames(limits)),
                      function(name) as.list(unname(limits[name, ]))),
  random_effects = named(setNames(effects[["(Intercept)"]], rownames(effects))),
  conditional_variance = attr(effects, "postVar")[1, 1, 1],
  simulated_sd = named(setNames(drawn$sd, drawn$groupID)),
  effect_sizes = named(fixef(by_school) / sigma(by_school)),
  exact_lrt = exact(exactLRT(m = refitML(by_school), m0 = lm(as.formula(fixed), pupils), seed = 1)),
  exact_restricted_lrt = exact(exactRLRT(by_school, seed = 1)),
  exact_school = exact(exactRLRT(m = by_school, mA = nested,
                                 m0 = fit(paste(fixed, "+ (1 | school:class)"), pupils), seed = 1)),
  exact_slope = exact(exactRLRT(
    m = fit(paste(of_class, "+ (0 + social_z | school:class)"), pupils), mA = uncorrelated,
    m0 = fit(paste(of_class, "+ (1 | school) + (1 | school:class)"), pupils), seed = 1)),
  predict_interval = intervals(FALSE),
  predict_interval_corrected = intervals(TRUE)
)

## Pupils in classrooms --------------------------------------------------------------------------

pupils <- generated("pupils_in_classrooms", "pupils")
means <- aggregate(cbind(edu, score) ~ classroom, pupils, mean)
lines <- do.call(rbind, lapply(split(pupils, pupils$classroom), function(own) {
  data.frame(slope = coef(lm(score ~ edu, own))[["edu"]], club = own$club[1])
}))
sums <- pupils
contrasts(sums$classroom) <- contr.sum

# What the page notes of every method: `effect` of `model`.
note <- function(model, effect) {
  residual <- residuals(model)
  n_coef <- nrow(coef(summary(model)))
  c(list(rmse = sqrt(sum(residual^2) / (length(residual) - n_coef))),
    coefficients_of(model)[[effect]])
}

classrooms <- list(
  "pooled regression" = note(lm(score ~ edu, pupils), "edu"),
  "ANCOVA: classroom dummies" = note(lm(score ~ edu + classroom, pupils), "edu"),
  "ANCOVA: dummies and slopes" = note(lm(score ~ edu * classroom, sums), "edu"),
  "aggregation: classroom means" = note(lm(score ~ edu, means), "edu"),
  "two stages: mean of slopes" = note(lm(slope ~ 1, lines), "(Intercept)"),
  "mixed: random intercept" = note(fit("score ~ edu + (1 | classroom)", pupils), "edu"),
  "mixed: random intercept and slope" =
    note(fit("score ~ edu + (1 + edu | classroom)", pupils), "edu"),
  "mixed: slope and classroom mean" =
    note(fit("score ~ edu + classroom_edu + (1 + edu | classroom)", pupils), "edu")
)
clubs <- list(
  "ANCOVA: classroom dummies" = note(lm(score ~ edu + edu:club + classroom, pupils), "edu:club"),
  "two stages: slopes on club" = note(lm(slope ~ club, lines), "club"),
  "mixed: slope and classroom mean" =
    note(fit("score ~ edu * club + classroom_edu + (1 + edu | classroom)", pupils), "edu:club")
)

con <- file("tests/reference/gallery_schools.json", "wb")
writeLines(c("{",
  paste0(' "versions": ', to_json(versions_of("lme4", "lmerTest", "RLRsim", "merTools", "arm")), ","),
  ' "extroversion":', paste0(one_line_per_key(extroversion), ","),
  ' "pupils_in_classrooms":',
  one_line_per_key(list(edu = classrooms, "edu:club" = clubs)),
  "}"), con)
close(con)

# Writes empty_cells.json: what lmerTest says about designs of which some cells are empty.
#
#     Rscript tests/reference/make_empty_cells.R        (from the root of the repository)

suppressPackageStartupMessages({
  library(lme4)
  library(lmerTest)
  library(jsonlite)
})

tight <- lmerControl(calc.derivs = TRUE, optimizer = "nloptwrap",
                     optCtrl = list(xtol_abs = 1e-12, ftol_abs = 1e-13, maxeval = 10000),
                     check.conv.singular = "ignore", check.conv.grad = "ignore")

# Rows of a crossing of factors with `levels` categories, without the cells `empty` (counted with the
# first factor fastest), in 12 groups; values are rounded so that the file holds them exactly.
layout <- function(seed, levels, empty) {
  set.seed(seed)
  cells <- expand.grid(lapply(levels, seq_len))[-empty, , drop = FALSE]
  names(cells) <- letters[seq_along(levels)]
  sizes <- 3 + rpois(nrow(cells), 3)
  rows <- cells[rep(seq_len(nrow(cells)), sizes), , drop = FALSE]
  rows <- as.data.frame(lapply(rows, function(column) paste0("l", column)))
  n <- nrow(rows)
  g <- sample(rep_len(1:12, n))
  x <- round(rnorm(n), 3)
  effects <- matrix(rnorm(24), 12)
  y <- as.numeric(factor(rows$a)) + effects[g, 1] + (0.5 + 0.7 * effects[g, 2]) * x + rnorm(n)
  data.frame(rows, g = paste0("g", g), x = x, y = round(y, 3), stringsAsFactors = TRUE)
}

designs <- list(
  list("two by two", 1, c(2, 2), 3, c("a * b + (1 | g)")),
  list("three by two, last", 2, c(3, 2), 6,
       c("a * b + (1 | g)", "a * b + x + (1 | g)", "b * a + (1 | g)")),
  list("three by two, first", 3, c(3, 2), 1, c("a * b + (1 | g)", "a * b + a : x + (1 | g)")),
  list("three by two, middle", 4, c(3, 2), 5, c("a * b + x + (1 + x | g)", "a : b + x + (1 | g)")),
  list("three by three, one", 5, c(3, 3), 5, c("a * b + (1 | g)", "a * b * x + (1 | g)")),
  list("three by three, two", 6, c(3, 3), c(3, 7), c("a * b + x + (1 | g)", "a * b + (1 + x | g)")),
  list("three by three, in one row", 7, c(3, 3), c(2, 5), c("a * b + (1 | g)")),
  list("four by three", 8, c(4, 3), c(1, 2, 6, 11), c("a * b + x + (1 | g)")),
  list("three factors, one", 9, c(2, 2, 2), 8, c("a * b * c + (1 | g)", "a * b * c + x + (1 + x | g)")),
  list("three factors, two", 10, c(2, 2, 2), c(3, 6), c("a * b * c + (1 | g)", "(a + b + c)^2 + (1 | g)")),
  list("three factors, more", 11, c(3, 2, 2), c(2, 7, 12), c("a * b * c + x + (1 | g)"))
)

table_of <- function(fit, type, ddf) {
  found <- suppressMessages(anova(fit, type = type, ddf = ddf))
  list(term = rownames(found), num_df = found$NumDF, den_df = found$DenDF,
       f_value = found[["F value"]], p_value = found[["Pr(>F)"]])
}

models <- list()
for (design in designs) {
  frame <- layout(design[[2]], design[[3]], design[[4]])
  for (coding in c("treatment", "sum")) {
    contrasts <- lapply(frame[names(frame) %in% c("a", "b", "c")],
                        function(column) paste0("contr.", coding))
    for (right in design[[5]]) {
      fit <- suppressMessages(
        lmer(as.formula(paste("y ~", right)), frame, contrasts = contrasts, control = tight)
      )
      tables <- list()
      for (type in 1:3) for (ddf in c("Satterthwaite", "Kenward-Roger")) {
        # lmerTest fails at type II of terms that have no column left.
        table <- tryCatch(table_of(fit, type, ddf), error = function(e) NULL)
        if (is.null(table)) next
        tables[[length(tables) + 1]] <- c(list(type = type, ddf = tolower(ddf)), table)
      }
      models[[length(models) + 1]] <- list(
        design = design[[1]], coding = coding, right = right,
        criterion = REMLcrit(fit), fixef = as.list(fixef(fit)), tables = tables
      )
    }
  }
}
frames <- lapply(designs, function(design) as.list(layout(design[[2]], design[[3]], design[[4]])))
names(frames) <- vapply(designs, `[[`, "", 1)
out <- list(versions = list(R = as.character(getRversion()),
                            lme4 = as.character(packageVersion("lme4")),
                            lmerTest = as.character(packageVersion("lmerTest")),
                            pbkrtest = as.character(packageVersion("pbkrtest"))),
            frames = frames, models = models)
write_json(out, "tests/reference/empty_cells.json", digits = 10, auto_unbox = TRUE, na = "null")

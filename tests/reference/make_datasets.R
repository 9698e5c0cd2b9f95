# Writes the data sets of mixedlearn.datasets, as CSV, from the R packages that carry them, and
# records in versions.txt which versions those were.
#
#     Rscript tests/reference/make_datasets.R        (from the root of the repository)
#
# Factors are written by their labels, missing values as empty fields. Rows keep R's order, because
# the reference values speak of "the first five rows".

suppressPackageStartupMessages(library(lme4))

data_dir <- "src/mixedlearn/datasets/data"
stopifnot(dir.exists(data_dir))

from_package <- function(name, package) {
  env <- new.env()
  data(list = name, package = package, envir = env)
  env[[name]]
}

write_csv <- function(frame, file) {
  path <- file.path(data_dir, file)
  # R's gzip header carries no time stamp, so the bytes depend on the data alone.
  con <- if (endsWith(file, ".gz")) gzfile(path, "wb", compression = 9) else file(path, "wb")
  on.exit(close(con))
  write.table(frame, con, sep = ",", dec = ".", eol = "\n", na = "", quote = FALSE,
              row.names = FALSE, fileEncoding = "UTF-8")
}

# The values that the model of the data is known to have tell apart the editions of a data set.
check_reml <- function(formula, frame, criterion) {
  fit <- lmer(formula, frame)
  stopifnot(abs(REMLcrit(fit) - criterion) < 1e-5)
}

dietox <- from_package("dietox", "geepack")
dietox <- dietox[c("Pig", "Litter", "Start", "Weight", "Feed", "Time", "Evit", "Cu")]
check_reml(Weight ~ Time + (1 | Pig), dietox, 4809.55067)
write_csv(dietox, "dietox.csv")

sitka <- from_package("Sitka", "MASS")
check_reml(size ~ Time + (1 | tree), sitka, 164.77681)
write_csv(sitka, "sitka.csv")

write_csv(from_package("sleepstudy", "lme4"), "sleepstudy.csv")
write_csv(from_package("Dyestuff", "lme4"), "dyestuff.csv")
write_csv(from_package("Dyestuff2", "lme4"), "dyestuff2.csv")
write_csv(from_package("Penicillin", "lme4"), "penicillin.csv")
write_csv(from_package("Pastes", "lme4"), "pastes.csv")
write_csv(from_package("cake", "lme4"), "cake.csv")
write_csv(from_package("InstEval", "lme4"), "insteval.csv.gz")

ovary <- as.data.frame(from_package("Ovary", "nlme"))
ovary$Day <- ave(seq_len(nrow(ovary)), ovary$Mare, FUN = seq_along)
write_csv(ovary, "ovary.csv")
for (name in c("Orthodont", "BodyWeight", "Dialyzer", "Milk", "Spruce")) {
  write_csv(as.data.frame(from_package(name, "nlme")), paste0(tolower(name), ".csv"))
}

packages <- c("lme4", "nlme", "MASS", "geepack", "minqa", "numDeriv")
versions <- vapply(packages, function(p) as.character(packageVersion(p)), "")
writeLines(c(R.version.string, paste(packages, versions)), "tests/reference/versions.txt")

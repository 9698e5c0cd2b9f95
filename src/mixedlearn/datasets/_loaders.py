"""What each data set is, as a table, and the one function that loads any of them."""

from dataclasses import dataclass
from importlib.resources import as_file, files
from textwrap import fill
from typing import Any

import pandas as pd
from sklearn.utils import Bunch

_LME4 = (
    "D. Bates, M. Mächler, B. Bolker and S. Walker (2015). Fitting linear mixed-effects models "
    "using lme4. Journal of Statistical Software 67(1), 1-48. R package lme4, data set {}."
)
_NLME = (
    "J. C. Pinheiro and D. M. Bates (2000). Mixed-Effects Models in S and S-PLUS. Springer, New "
    "York. R package nlme, data set {}."
)
_DIGGLE = (
    "P. J. Diggle, K.-Y. Liang and S. L. Zeger (1994). Analysis of Longitudinal Data. "
    "Clarendon Press, Oxford."
)
_DAVIES = (
    "O. L. Davies and P. L. Goldsmith, eds. (1972). Statistical Methods in Research and "
    "Production, 4th edition, section {}. Oliver and Boyd, Edinburgh."
)


@dataclass(frozen=True, slots=True)
class DataSet:
    """Where a data set is stored and what there is to say about it.

    Parameters
    ----------
    filename : str
        Name of the CSV file in the folder ``data``.
    title : str
        One line.
    story : str
        How the data came about and what to mind when modelling them.
    columns : dict of str to str
        Every column in the order of the file, with its meaning and unit.
    target : str
        The response.
    groups : tuple of str
        The columns that hold the grouping factors.
    model : str
        The model usually fitted: an lme4 formula, and the residual structure if it has one.
    sources : tuple of str
        Where the data were first published, then the R package they were taken from.
    text_columns : tuple of str
        Columns of labels that look like numbers.
    """

    filename: str
    title: str
    story: str
    columns: dict[str, str]
    target: str
    groups: tuple[str, ...]
    model: str
    sources: tuple[str, ...]
    text_columns: tuple[str, ...] = ()

    def read(self) -> pd.DataFrame:
        """Read all rows and columns; a missing value is an empty field of the file."""
        with as_file(files(__package__) / "data" / self.filename) as path:
            return pd.read_csv(path, dtype=dict.fromkeys(self.text_columns, str))

    def describe(self, n_rows: int) -> str:
        """Put together the text that users find as ``DESCR``.

        Parameters
        ----------
        n_rows : int
            Number of rows of the data set.

        Returns
        -------
        str
            Plain text in lines of less than 80 characters.
        """
        return "\n".join(
            [
                self.title,
                "=" * len(self.title),
                "",
                fill(self.story, width=79),
                "",
                f"{n_rows} rows. Columns:",
                "",
                *(_item(f"{name}: {meaning}") for name, meaning in self.columns.items()),
                "",
                f"Target: {self.target}",
                f"Grouping factors: {', '.join(self.groups)}",
                fill(f"Usual model: {self.model}", width=79),
                "",
                "Sources:",
                "",
                *(_item(source) for source in self.sources),
                "",
            ]
        )


def _item(text: str) -> str:
    return fill(f"- {text}", width=79, subsequent_indent="  ", break_on_hyphens=False)


def load(name: str, *, return_X_y: bool) -> Any:
    """Load one data set of `DATA_SETS`.

    Parameters
    ----------
    name : str
        Key of `DATA_SETS`.
    return_X_y : bool
        Whether to return ``(data, target)`` instead of the Bunch.

    Returns
    -------
    sklearn.utils.Bunch or tuple of (DataFrame, Series)
        As the public loaders say.
    """
    spec = DATA_SETS[name]
    frame = spec.read()
    data = frame.drop(columns=spec.target)
    target = frame[spec.target]
    if return_X_y:
        return data, target
    group_names = list(spec.groups)
    return Bunch(
        frame=frame,
        data=data,
        target=target,
        target_name=spec.target,
        feature_names=list(data.columns),
        groups=data[group_names[0]] if len(group_names) == 1 else data[group_names],
        group_names=group_names,
        DESCR=spec.describe(len(frame)),
        filename=spec.filename,
    )


DATA_SETS = {
    "dietox": DataSet(
        filename="dietox.csv",
        title="Growth of pigs on different diets",
        story=(
            "72 pigs from 21 litters were weighed every week for 12 weeks in a 3 x 3 factorial "
            "experiment with vitamin E and copper in the feed. Pigs differ in their weight and in "
            "their growth. Three weighings are missing, and so is the feed intake of the first "
            "week."
        ),
        columns={
            "Pig": "number of the pig",
            "Litter": "number of the litter the pig was born in",
            "Start": "weight in the first week, kg",
            "Weight": "weight, kg",
            "Feed": "cumulated feed intake, kg; missing in the first week",
            "Time": "weeks in the experiment, 1 to 12",
            "Evit": "vitamin E dose: Evit000, Evit100 or Evit200, mg per kg of feed",
            "Cu": "copper dose: Cu000, Cu035 or Cu175, mg per kg of feed",
        },
        target="Weight",
        groups=("Pig",),
        model="Weight ~ Time + (1 + Time | Pig)",
        sources=(
            "C. Lauridsen, S. Højsgaard and M. T. Sørensen (1999). Influence of dietary rapeseed "
            "oil, vitamin E, and copper on the performance and the antioxidative and oxidative "
            "status of pigs. Journal of Animal Science 77(4), 906-916.",
            "S. Højsgaard, U. Halekoh and J. Yan (2006). The R package geepack for generalized "
            "estimating equations. Journal of Statistical Software 15(2), 1-11. "
            "R package geepack, data set dietox.",
        ),
    ),
    "sitka": DataSet(
        filename="sitka.csv",
        title="Growth of Sitka spruce trees in 1988",
        story=(
            "The size of 79 trees, 54 of them grown in air enriched with ozone, was measured five "
            "times in one season. Time counts from the first of January, so its values are far "
            "from zero, and the growth in a day is small: optimisers that depend on the scale of "
            "the covariates may stop too early."
        ),
        columns={
            "size": "logarithm of the size, that is of height times squared diameter",
            "Time": "days since 1 January 1988",
            "tree": "number of the tree",
            "treat": "ozone or control",
        },
        target="size",
        groups=("tree",),
        model="size ~ Time + (1 + Time | tree)",
        sources=(
            _DIGGLE,
            "W. N. Venables and B. D. Ripley (2002). Modern Applied Statistics with S, 4th "
            "edition. Springer, New York. R package MASS, data set Sitka.",
        ),
    ),
    "sleepstudy": DataSet(
        filename="sleepstudy.csv",
        title="Reaction times of people deprived of sleep",
        story=(
            "18 people were allowed three hours in bed each night; every day their average time in "
            "a series of reaction tests was recorded. Days 0 and 1 were adaptation and training, "
            "day 2 the baseline; the deprivation started after day 2."
        ),
        columns={
            "Reaction": "average reaction time, ms",
            "Days": "day of the study, 0 to 9",
            "Subject": "number of the person",
        },
        target="Reaction",
        groups=("Subject",),
        model="Reaction ~ Days + (1 + Days | Subject)",
        sources=(
            "G. Belenky, N. J. Wesensten, D. R. Thorne, M. L. Thomas, H. C. Sing, D. P. Redmond, "
            "M. B. Russo and T. J. Balkin (2003). Patterns of performance degradation and "
            "restoration during sleep restriction and subsequent recovery: a sleep dose-response "
            "study. Journal of Sleep Research 12(1), 1-12.",
            _LME4.format("sleepstudy"),
        ),
    ),
    "dyestuff": DataSet(
        filename="dyestuff.csv",
        title="Yield of dyestuff by batch",
        story=(
            "Five preparations of the dyestuff Naphthalene Black 12B were made from each of six "
            "batches of an intermediate product, to learn how much of the variation of the yield "
            "is variation between batches. The design is balanced, so that the REML estimates "
            "equal those of the analysis of variance."
        ),
        columns={
            "Batch": "batch of the intermediate product, A to F",
            "Yield": "yield, grams of standard colour",
        },
        target="Yield",
        groups=("Batch",),
        model="Yield ~ 1 + (1 | Batch)",
        sources=(_DAVIES.format("6.4"), _LME4.format("Dyestuff")),
    ),
    "dyestuff2": DataSet(
        filename="dyestuff2.csv",
        title="Simulated yield of dyestuff, without variation between batches",
        story=(
            "Made up in the layout of the dyestuff data to show what happens when the mean square "
            "between batches is below the one within: the estimated variance between batches is "
            "exactly zero."
        ),
        columns={
            "Batch": "batch, A to F",
            "Yield": "simulated yield, no unit",
        },
        target="Yield",
        groups=("Batch",),
        model="Yield ~ 1 + (1 | Batch)",
        sources=(
            "G. E. P. Box and G. C. Tiao (1973). Bayesian Inference in Statistical Analysis, "
            "section 5.1.2. Addison-Wesley, Reading.",
            _LME4.format("Dyestuff2"),
        ),
    ),
    "penicillin": DataSet(
        filename="penicillin.csv",
        title="Penicillin samples tested on plates",
        story=(
            "Six samples of penicillin were tested on each of 24 plates of agar; the wider the "
            "zone without bacteria, the stronger the sample. A small, fully crossed design: every "
            "sample meets every plate once."
        ),
        columns={
            "diameter": "diameter of the zone of inhibited growth, mm",
            "plate": "assay plate, a to x",
            "sample": "penicillin sample, A to F",
        },
        target="diameter",
        groups=("plate", "sample"),
        model="diameter ~ 1 + (1 | plate) + (1 | sample)",
        sources=(_DAVIES.format("6.6"), _LME4.format("Penicillin")),
    ),
    "pastes": DataSet(
        filename="pastes.csv",
        title="Strength of a chemical paste by batch and cask",
        story=(
            "Three casks were sampled from each of ten deliveries, and each sample was tested "
            "twice. Casks are nested in batches: the labels a, b, c are used again in every batch, "
            "so that cask alone is no grouping factor. The column sample, batch:cask in lme4's "
            "notation, has a label of its own for each of the 30 casks."
        ),
        columns={
            "strength": "strength of the paste",
            "batch": "delivery, A to J",
            "cask": "cask within the delivery, a to c",
            "sample": "delivery and cask, A:a to J:c",
        },
        target="strength",
        groups=("batch", "sample"),
        model="strength ~ 1 + (1 | batch) + (1 | sample)",
        sources=(_DAVIES.format("6.5"), _LME4.format("Pastes")),
    ),
    "cake": DataSet(
        filename="cake.csv",
        title="Breakage angle of chocolate cakes",
        story=(
            "A split-plot experiment: in each of 15 replicates a batch was mixed by each of three "
            "recipes, and six cakes of each batch were baked, one at each temperature. A "
            "batch is a combination of recipe and replicate; the 15 labels of replicate "
            "alone do not tell the 45 batches apart."
        ),
        columns={
            "replicate": "number of the replicate, 1 to 15, probably in order of time",
            "recipe": "A, B or C",
            "temperature": "baking temperature as a category: 175, 185, ..., 225, as text",
            "angle": "angle at which the cake broke, degrees",
            "temp": "baking temperature as a number, degrees Fahrenheit",
        },
        target="angle",
        groups=("replicate",),
        model="angle ~ recipe * temperature + (1 | recipe:replicate)",
        sources=(
            "F. E. Cook (1938). Chocolate cake, I. Optimum baking temperature. Master's thesis, "
            "Iowa State College. Reported in W. G. Cochran and G. M. Cox (1957). Experimental "
            "Designs, 2nd edition, p. 300. John Wiley & Sons, New York.",
            _LME4.format("cake"),
        ),
        text_columns=("temperature",),
    ),
    "insteval": DataSet(
        filename="insteval.csv.gz",
        title="Evaluations of university lectures by students",
        story=(
            "Students of ETH Zürich rated their lecturers. Students and lecturers are crossed, but "
            "far from completely, and the many levels of both make this the usual yardstick for "
            "the speed of a fit with several factors. The data are anonymised."
        ),
        columns={
            "s": "number of the student, 1 to 2972",
            "d": "number of the lecturer, 1128 of the numbers 1 to 2160",
            "studage": "semesters the student has been enrolled: 2, 4, 6 or 8",
            "lectage": "semesters since the lecture was held, 1 to 6",
            "service": "1 if the lecture was held for another department than the lecturer's own",
            "dept": "department of the lecture, 14 of the numbers 1 to 15",
            "y": "rating, from 1 (poor) to 5 (very good)",
        },
        target="y",
        groups=("s", "d", "dept"),
        model="y ~ service + (1 | s) + (1 | d) + (1 | dept)",
        sources=(_LME4.format("InstEval"),),
    ),
    "ovary": DataSet(
        filename="ovary.csv",
        title="Ovarian follicles of mares",
        story=(
            "The large follicles of 11 mares were counted every day from three days before an "
            "ovulation to three days after the next. Their number rises and falls once in a cycle, "
            "and what is left is correlated from day to day. Cycles differ in length: Time is "
            "a share of the mare's cycle, Day counts days."
        ),
        columns={
            "Mare": "number of the mare",
            "Time": "time in the cycle; the mare ovulates at 0 and at 1",
            "follicles": "number of follicles of more than 10 mm diameter",
            "Day": "number of the day on which the mare was examined, from 1",
        },
        target="follicles",
        groups=("Mare",),
        model=(
            "follicles ~ sin(2 * pi * Time) + cos(2 * pi * Time) + (1 | Mare), noise AR(1) over Day"
        ),
        sources=(
            "R. A. Pierson and O. J. Ginther (1987). Follicular population dynamics during the "
            "estrus cycle of the mare. Animal Reproduction Science 14(3), 219-231.",
            _NLME.format("Ovary, without the column Day"),
        ),
    ),
    "orthodont": DataSet(
        filename="orthodont.csv",
        title="Growth of the jaws of children",
        story=(
            "In 27 children, 11 of them girls, the distance between two points at the side of the "
            "head was measured on X-ray pictures at the ages of 8, 10, 12 and 14 years. The "
            "measurements of boys vary more within a child than those of girls."
        ),
        columns={
            "distance": "distance from the pituitary to the pterygomaxillary fissure, mm",
            "age": "age, years",
            "Subject": "the child, M01 to M16 and F01 to F11",
            "Sex": "Male or Female",
        },
        target="distance",
        groups=("Subject",),
        model="distance ~ age * Sex + (1 + age | Subject)",
        sources=(
            "R. F. Potthoff and S. N. Roy (1964). A generalized multivariate analysis of variance "
            "model useful especially for growth curve problems. Biometrika 51(3/4), 313-326.",
            _NLME.format("Orthodont"),
        ),
    ),
    "bodyweight": DataSet(
        filename="bodyweight.csv",
        title="Weights of rats on three diets",
        story=(
            "16 rats on three diets were weighed every seven days, and once more on day 44. So the "
            "times are not equally spaced. The rats of the first diet are much lighter than the "
            "others from the start."
        ),
        columns={
            "weight": "weight, g",
            "Time": "day, 1 to 64",
            "Rat": "number of the rat",
            "Diet": "diet: 1, 2 or 3, as text",
        },
        target="weight",
        groups=("Rat",),
        model="weight ~ Time * Diet + (1 + Time | Rat), noise continuous AR(1) over Time",
        sources=(
            "M. J. Crowder and D. J. Hand (1990). Analysis of Repeated Measures, table 2.4. "
            "Chapman and Hall, London.",
            _NLME.format("BodyWeight"),
        ),
        text_columns=("Diet",),
    ),
    "dialyzer": DataSet(
        filename="dialyzer.csv",
        title="Ultrafiltration rates of dialyzers",
        story=(
            "The rates of 20 high-flux dialyzers were measured with bovine blood at seven "
            "pressures, ten of them at either blood flow. The rate varies more at higher pressures."
        ),
        columns={
            "Subject": "number of the dialyzer",
            "QB": "blood flow: 200 or 300 dl/min",
            "pressure": "transmembrane pressure, dmHg",
            "rate": "ultrafiltration rate, ml/h",
            "index": "number of the measurement of the dialyzer, 1 to 7",
        },
        target="rate",
        groups=("Subject",),
        model=(
            "rate ~ (pressure + pressure^2 + pressure^3 + pressure^4) * QB "
            "+ (1 + pressure + pressure^2 | Subject), noise a power of pressure"
        ),
        sources=(
            "E. F. Vonesh and R. L. Carter (1992). Mixed-effects nonlinear regression for "
            "unbalanced repeated measures. Biometrics 48(1), 1-17.",
            _NLME.format("Dialyzer"),
        ),
    ),
    "milk": DataSet(
        filename="milk.csv",
        title="Protein in the milk of cows",
        story=(
            "The milk of 79 cows on three diets was analysed once a week after calving, for up to "
            "19 weeks. Some cows have fewer weeks, and the weeks of eight cows have gaps."
        ),
        columns={
            "protein": "protein content, percent",
            "Time": "weeks since calving, 1 to 19",
            "Cow": "the cow: letters of her diet and a number, B01 to L27",
            "Diet": "barley, lupins, or barley+lupins",
        },
        target="protein",
        groups=("Cow",),
        model="protein ~ Diet + Time + (1 | Cow), noise AR(1) over Time",
        sources=(_DIGGLE, _NLME.format("Milk")),
    ),
    "spruce": DataSet(
        filename="spruce.csv",
        title="Growth of Sitka spruce trees in 1988 and 1989",
        story=(
            "The trees of the data set sitka in two summers: 79 trees in four chambers, measured "
            "13 times. The air of two chambers, whose trees are labelled O, had ozone added; "
            "that of the other two, labelled N, had not."
        ),
        columns={
            "Tree": "the tree: letters of its chamber and a number, N1T01 to O2T27",
            "days": "days since 1 January 1988, 152 to 674",
            "logSize": "logarithm of the size, that is of height times squared diameter",
            "plot": "number of the chamber, 1 to 4; 1 and 2 have ozone",
        },
        target="logSize",
        groups=("Tree",),
        model="logSize ~ days + (1 | Tree), noise continuous AR(1) over days",
        sources=(_DIGGLE, _NLME.format("Spruce")),
    ),
}

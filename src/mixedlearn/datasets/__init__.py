"""Data sets with groups, small enough to ship, each with known answers.

Every loader returns a `sklearn.utils.Bunch` with

frame : DataFrame
    All rows and columns.
data : DataFrame
    All columns but the target. The group columns are among them, since an estimator finds its
    grouping factors there by name.
target : Series
    The response.
target_name, feature_names : str and list of str
    The names of the target and of the columns of ``data``.
groups : Series or DataFrame
    The labels of the grouping factor; with several factors, a column for each.
group_names : list of str
    The names of the grouping factors.
DESCR : str
    What the data are, the meaning of the columns, the model usually fitted and the sources.
filename : str
    The file the data were read from.
"""

from typing import Any

from mixedlearn.datasets._loaders import load

__all__ = [
    "load_bodyweight",
    "load_cake",
    "load_dialyzer",
    "load_dietox",
    "load_dyestuff",
    "load_dyestuff2",
    "load_insteval",
    "load_milk",
    "load_orthodont",
    "load_ovary",
    "load_pastes",
    "load_penicillin",
    "load_sitka",
    "load_sleepstudy",
    "load_spruce",
]


def load_dietox(*, return_X_y: bool = False) -> Any:
    """Load the weights of pigs on different diets (861 rows, 72 pigs).

    A growth curve for every pig: random intercepts and slopes over ``Time``. The feed intake of the
    first week is missing in 72 rows; no row is dropped.

    Parameters
    ----------
    return_X_y : bool, default=False
        Whether to return ``(data, target)`` instead of the Bunch.

    Returns
    -------
    Bunch or tuple of (DataFrame, Series)
        Attributes: see `mixedlearn.datasets`; ``groups`` is the column ``Pig``.

    Examples
    --------
    >>> from mixedlearn.datasets import load_dietox
    >>> pigs = load_dietox()
    >>> pigs.data.columns.tolist()
    ['Pig', 'Litter', 'Start', 'Feed', 'Time', 'Evit', 'Cu']
    >>> pigs.groups.nunique()
    72
    """
    return load("dietox", return_X_y=return_X_y)


def load_sitka(*, return_X_y: bool = False) -> Any:
    """Load the growth of Sitka spruce trees (395 rows, 79 trees).

    A test of optimisers: with random intercepts and slopes over ``Time`` that of lme4 1.1.31 stops
    far from the maximum of the likelihood, unless another is chosen.

    Parameters
    ----------
    return_X_y : bool, default=False
        Whether to return ``(data, target)`` instead of the Bunch.

    Returns
    -------
    Bunch or tuple of (DataFrame, Series)
        Attributes: see `mixedlearn.datasets`; ``groups`` is the column ``tree``.

    Examples
    --------
    >>> from mixedlearn.datasets import load_sitka
    >>> trees = load_sitka()
    >>> trees.frame.groupby("treat")["tree"].nunique().to_dict()
    {'control': 25, 'ozone': 54}
    """
    return load("sitka", return_X_y=return_X_y)


def load_sleepstudy(*, return_X_y: bool = False) -> Any:
    """Load the reaction times of people deprived of sleep (180 rows, 18 people).

    The textbook example of random intercepts and slopes.

    Parameters
    ----------
    return_X_y : bool, default=False
        Whether to return ``(data, target)`` instead of the Bunch.

    Returns
    -------
    Bunch or tuple of (DataFrame, Series)
        Attributes: see `mixedlearn.datasets`; ``groups`` is the column ``Subject``.

    Examples
    --------
    >>> from mixedlearn.datasets import load_sleepstudy
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> X.columns.tolist(), y.name
    (['Days', 'Subject'], 'Reaction')
    >>> float(y.max())
    466.3535
    """
    return load("sleepstudy", return_X_y=return_X_y)


def load_dyestuff(*, return_X_y: bool = False) -> Any:
    """Load the yield of dyestuff by batch (30 rows, 6 batches).

    Balanced one-way data, whose REML estimates have a closed form.

    Parameters
    ----------
    return_X_y : bool, default=False
        Whether to return ``(data, target)`` instead of the Bunch.

    Returns
    -------
    Bunch or tuple of (DataFrame, Series)
        Attributes: see `mixedlearn.datasets`; ``groups`` is the column ``Batch``.

    Examples
    --------
    >>> from mixedlearn.datasets import load_dyestuff
    >>> dyestuff = load_dyestuff()
    >>> dyestuff.target.groupby(dyestuff.groups).mean().to_dict()
    {'A': 1505.0, 'B': 1528.0, 'C': 1564.0, 'D': 1498.0, 'E': 1600.0, 'F': 1470.0}
    """
    return load("dyestuff", return_X_y=return_X_y)


def load_dyestuff2(*, return_X_y: bool = False) -> Any:
    """Load simulated yields whose variance between batches is estimated as zero (30 rows).

    Laid out like the dyestuff data. A fit must arrive at exactly zero without trouble.

    Parameters
    ----------
    return_X_y : bool, default=False
        Whether to return ``(data, target)`` instead of the Bunch.

    Returns
    -------
    Bunch or tuple of (DataFrame, Series)
        Attributes: see `mixedlearn.datasets`; ``groups`` is the column ``Batch``.

    Examples
    --------
    >>> from mixedlearn.datasets import load_dyestuff2
    >>> simulated = load_dyestuff2()
    >>> simulated.frame.shape
    (30, 2)
    """
    return load("dyestuff2", return_X_y=return_X_y)


def load_penicillin(*, return_X_y: bool = False) -> Any:
    """Load tests of penicillin samples on plates (144 rows, 24 plates, 6 samples).

    Two fully crossed factors.

    Parameters
    ----------
    return_X_y : bool, default=False
        Whether to return ``(data, target)`` instead of the Bunch.

    Returns
    -------
    Bunch or tuple of (DataFrame, Series)
        Attributes: see `mixedlearn.datasets`; ``groups`` has the columns ``plate`` and ``sample``.

    Examples
    --------
    >>> from mixedlearn.datasets import load_penicillin
    >>> penicillin = load_penicillin()
    >>> penicillin.groups.nunique().to_dict()
    {'plate': 24, 'sample': 6}
    """
    return load("penicillin", return_X_y=return_X_y)


def load_pastes(*, return_X_y: bool = False) -> Any:
    """Load the strength of a chemical paste (60 rows, 10 batches of 3 casks).

    Two nested factors: ``sample`` is the interaction of ``batch`` and ``cask``.

    Parameters
    ----------
    return_X_y : bool, default=False
        Whether to return ``(data, target)`` instead of the Bunch.

    Returns
    -------
    Bunch or tuple of (DataFrame, Series)
        Attributes: see `mixedlearn.datasets`; ``groups`` has the columns ``batch`` and ``sample``.

    Examples
    --------
    >>> from mixedlearn.datasets import load_pastes
    >>> pastes = load_pastes()
    >>> pastes.groups.nunique().to_dict()
    {'batch': 10, 'sample': 30}
    """
    return load("pastes", return_X_y=return_X_y)


def load_cake(*, return_X_y: bool = False) -> Any:
    """Load the breakage angle of chocolate cakes (270 rows, 45 batches).

    A split-plot experiment. Its batches are the combinations of ``recipe`` and ``replicate``;
    ``temperature`` holds the baking temperature as text, ``temp`` as a number.

    Parameters
    ----------
    return_X_y : bool, default=False
        Whether to return ``(data, target)`` instead of the Bunch.

    Returns
    -------
    Bunch or tuple of (DataFrame, Series)
        Attributes: see `mixedlearn.datasets`; ``groups`` is the column ``replicate``.

    Examples
    --------
    >>> from mixedlearn.datasets import load_cake
    >>> cake = load_cake()
    >>> cake.frame.groupby(["recipe", "replicate"]).ngroups
    45
    >>> cake.frame["temperature"].unique().tolist()
    ['175', '185', '195', '205', '215', '225']
    """
    return load("cake", return_X_y=return_X_y)


def load_insteval(*, return_X_y: bool = False) -> Any:
    """Load evaluations of lectures (73,421 rows, 2,972 students, 1,128 lecturers).

    Three partly crossed factors, large enough to time a fit: ``s`` are the students, ``d`` the
    lecturers.

    Parameters
    ----------
    return_X_y : bool, default=False
        Whether to return ``(data, target)`` instead of the Bunch.

    Returns
    -------
    Bunch or tuple of (DataFrame, Series)
        Attributes: see `mixedlearn.datasets`; ``groups`` has the columns ``s``, ``d`` and ``dept``.

    Examples
    --------
    >>> from mixedlearn.datasets import load_insteval
    >>> ratings = load_insteval()
    >>> ratings.groups.nunique().to_dict()
    {'s': 2972, 'd': 1128, 'dept': 14}
    """
    return load("insteval", return_X_y=return_X_y)


def load_ovary(*, return_X_y: bool = False) -> Any:
    """Load daily counts of the ovarian follicles of mares (308 rows, 11 mares).

    A cycle with noise that is correlated from day to day.

    Parameters
    ----------
    return_X_y : bool, default=False
        Whether to return ``(data, target)`` instead of the Bunch.

    Returns
    -------
    Bunch or tuple of (DataFrame, Series)
        Attributes: see `mixedlearn.datasets`; ``groups`` is the column ``Mare``.

    Examples
    --------
    >>> from mixedlearn.datasets import load_ovary
    >>> mares = load_ovary()
    >>> mares.frame.head(3)
       Mare      Time  follicles  Day
    0     1 -0.136364         20    1
    1     1 -0.090909         15    2
    2     1 -0.045455         19    3
    """
    return load("ovary", return_X_y=return_X_y)


def load_orthodont(*, return_X_y: bool = False) -> Any:
    """Load the growth of the jaws of children (108 rows, 27 children).

    Balanced data with four occasions, and another variance of the noise for boys than for girls.

    Parameters
    ----------
    return_X_y : bool, default=False
        Whether to return ``(data, target)`` instead of the Bunch.

    Returns
    -------
    Bunch or tuple of (DataFrame, Series)
        Attributes: see `mixedlearn.datasets`; ``groups`` is the column ``Subject``.

    Examples
    --------
    >>> from mixedlearn.datasets import load_orthodont
    >>> children = load_orthodont().frame
    >>> children.groupby("Sex")["distance"].mean().round(2).to_dict()
    {'Female': 22.65, 'Male': 24.97}
    """
    return load("orthodont", return_X_y=return_X_y)


def load_bodyweight(*, return_X_y: bool = False) -> Any:
    """Load the weights of rats on three diets (176 rows, 16 rats).

    Growth at times that are not equally spaced. ``Diet`` is text, so that formulas take it for a
    category.

    Parameters
    ----------
    return_X_y : bool, default=False
        Whether to return ``(data, target)`` instead of the Bunch.

    Returns
    -------
    Bunch or tuple of (DataFrame, Series)
        Attributes: see `mixedlearn.datasets`; ``groups`` is the column ``Rat``.

    Examples
    --------
    >>> from mixedlearn.datasets import load_bodyweight
    >>> rats = load_bodyweight().frame
    >>> rats["Time"].unique().tolist()
    [1, 8, 15, 22, 29, 36, 43, 44, 50, 57, 64]
    """
    return load("bodyweight", return_X_y=return_X_y)


def load_dialyzer(*, return_X_y: bool = False) -> Any:
    """Load ultrafiltration rates of dialyzers (140 rows, 20 dialyzers).

    A curve for every dialyzer, with a variance that grows with the pressure.

    Parameters
    ----------
    return_X_y : bool, default=False
        Whether to return ``(data, target)`` instead of the Bunch.

    Returns
    -------
    Bunch or tuple of (DataFrame, Series)
        Attributes: see `mixedlearn.datasets`; ``groups`` is the column ``Subject``.

    Examples
    --------
    >>> from mixedlearn.datasets import load_dialyzer
    >>> dialyzers = load_dialyzer().frame
    >>> dialyzers.groupby("index")["rate"].std().round(1).tolist()
    [3.3, 2.2, 3.5, 5.3, 6.8, 8.7, 10.1]
    """
    return load("dialyzer", return_X_y=return_X_y)


def load_milk(*, return_X_y: bool = False) -> Any:
    """Load the protein content of the milk of cows (1337 rows, 79 cows).

    Weekly series of different lengths, some of them with gaps.

    Parameters
    ----------
    return_X_y : bool, default=False
        Whether to return ``(data, target)`` instead of the Bunch.

    Returns
    -------
    Bunch or tuple of (DataFrame, Series)
        Attributes: see `mixedlearn.datasets`; ``groups`` is the column ``Cow``.

    Examples
    --------
    >>> from mixedlearn.datasets import load_milk
    >>> milk = load_milk().frame
    >>> weeks = milk.groupby("Cow").size()
    >>> int(weeks.min()), int(weeks.max())
    (12, 19)
    """
    return load("milk", return_X_y=return_X_y)


def load_spruce(*, return_X_y: bool = False) -> Any:
    """Load the growth of Sitka spruce trees in two summers (1027 rows, 79 trees).

    The trees of `load_sitka`, with the eight measurements of the second summer.

    Parameters
    ----------
    return_X_y : bool, default=False
        Whether to return ``(data, target)`` instead of the Bunch.

    Returns
    -------
    Bunch or tuple of (DataFrame, Series)
        Attributes: see `mixedlearn.datasets`; ``groups`` is the column ``Tree``.

    Examples
    --------
    >>> from mixedlearn.datasets import load_spruce
    >>> trees = load_spruce().frame
    >>> trees.groupby("plot")["Tree"].nunique().to_dict()
    {1: 27, 2: 27, 3: 12, 4: 13}
    """
    return load("spruce", return_X_y=return_X_y)

"""What the words of the page mean, once for all its parts."""

GLOSSARY = (
    ("run", "One search with one seed, from the search to the test."),
    (
        "section",
        "Runs that may be compared: data, training limit, space, protocol, scope of the circuits and accounting of energy are "
        "the same. Nothing is compared across sections.",
    ),
    (
        "finalist",
        "One of the few networks of a run that were trained in full and tested in fp32, exact int8 and approximate.",
    ),
    (
        "test error",
        "Share of test images with a wrong answer in approximate arithmetic: through the truth tables of the circuits. A run "
        "counts with its finalist of the highest validation accuracy, for choosing by test error would flatter it.",
    ),
    (
        "± ",
        "Sample standard deviation over runs; brackets hold the 95 % interval of the mean; (k of n): measured in k of n runs.",
    ),
    (
        "drop",
        "Points of test accuracy that approximate arithmetic loses against exact int8, of the same network; positive: lost.",
    ),
    (
        "saved",
        "Share of a cost that approximate arithmetic saves, of the same network in exact int8 or fp32; positive: saved.",
    ),
    (
        "hypervolume",
        "Share, 0 to 1, of a box of error and cost that a front dominates; more is better. The box ends at an error of 100 % "
        "and at the cost of the reference network in exact int8.",
    ),
    ("IGD+", "How far, on average, a front falls short of the best points of all runs of the section; 0 is best."),
    (
        "regret",
        "Hypervolume of the true front, which a table of trained networks knows, minus that of what a search proposes, by "
        "their true errors; 0 is best.",
    ),
    (
        "p",
        "Of a two-sided Wilcoxon signed-rank test, runs paired by seed, after Holm's correction; from 0.05 on two methods "
        "cannot be told apart, which does not mean that they are equal.",
    ),
    (
        "rank",
        "Mean over seeds of a method's place by regret, 1 is best. Ranks that differ by less than the critical difference "
        "(Nemenyi's test, 5 %) cannot be told apart.",
    ),
    (
        "control",
        "A method that does little or no search (random, local_search, zero), by which the others are measured.",
    ),
    ("trained work", "MACs × images × epochs × 3: what training costs, whatever the machine and what else it does."),
    ("device time", "Wall time × devices: device-s, device-min or device-h."),
    ("–", "Not measured."),
)

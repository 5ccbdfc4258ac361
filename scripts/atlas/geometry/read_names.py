"""Names in the tables `probes` and `tuned_lens`: for what makes them, and for figures and pages, without torch."""

# `probes`
MODULI, INDEX = (10, 5, 2), "index"
ACCURACY, CORRELATION = "accuracy", "correlation"
OTHERS, ALL_CLASSES = "other classes", "all classes"  # trained on
ALL, BEYOND = "all", "beyond ten"  # tested on, beside single classes

# `tuned_lens`
LOGIT, TUNED, CONSTANT = "logit", "tuned", "constant"  # lenses
LESS_LOGIT, LESS_CONSTANT = "tuned less logit", "tuned less constant"
METRICS, LEADS_FROM = ("kl", "probability", "reciprocal_rank", "leads"), "leads_from"
NO_POINT = -1  # the point of what has none
HALF = "half"  # the split of a study that holds nothing out

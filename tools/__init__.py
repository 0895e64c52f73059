"""Programs beside the pipeline."""

import utils.errors  # noqa: F401  # before packages that may be missing: it says how to install them

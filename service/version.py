"""The version of Forebay, equal to the client library's: both are released together. A checkout has no metadata."""

import forebay

VERSION = forebay.__version__

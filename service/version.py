"""The version of Forebay: that of the client library, since both are released together. A checkout has no metadata."""

import forebay

VERSION = forebay.__version__

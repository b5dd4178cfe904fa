"""A model's picture in the words of `engines.pictures`, for devices that bring pictures to its input. Pure."""

from forebay_server.engines.pictures import Filter, PictureForm, PictureRow, PictureSource
from forebay_server.service.pictures.geometry import placement_of
from forebay_server.service.pictures.picture_input import PictureInput
from forebay_server.service.pictures.value_table import table_of

_FILTERS = {
    "opencv": Filter.LINEAR,
    "bilinear": Filter.ANTIALIASED_LINEAR,
    "bicubic": Filter.ANTIALIASED_CUBIC,
}


def form_of(picture: PictureInput) -> PictureForm:
    """Return the form of a model's picture."""
    return PictureForm(
        picture.width,
        picture.height,
        picture.color_order,
        picture.values.layout,
        table_of(picture.values, picture.channels),
        picture.pad_value,
    )


def row_of(picture: PictureInput, source: PictureSource, row: int) -> PictureRow:
    """Return where a picture goes in a row of the model's input, and how it is resized."""
    placement = placement_of(picture, source.size)
    kind = Filter.LINEAR if placement.resized == source.size else _FILTERS[picture.interpolation]
    return PictureRow(row, source, placement.resized, placement.left, placement.top, kind)

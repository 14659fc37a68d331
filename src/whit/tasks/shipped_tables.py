"""Public tables by name: thirteen of the PMLB collection, as it was published in May 2017.

The nominal columns of these files are coded by whole numbers; which ones they are is said here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from whit.tasks.data_folder import data_file

# This commit, before the collection moved to another store, holds these very bytes (compared by
# their git object names).
BASE_URL = (
    "https://raw.githubusercontent.com/EpistasisLab/pmlb/"
    "1f61f5cc2b8facaa11acd79d501b7030ac885aee/datasets/classification/"
)


@dataclass(frozen=True)
class ShippedTable:
    """A public table; all have their class in the column `target`.

    Attributes:
        sha256: of the packed file, 64 hex digits.
        categorical: columns that are codes of categories, or "all".
        measured: columns that are no codes where `categorical` is "all".
        ignore: columns that name a row and say nothing of others.
    """

    sha256: str
    categorical: tuple[str, ...] | str = ()
    measured: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()


SHIPPED = {
    "adult": ShippedTable(
        "e0194b79ba0f9ca48258678642fc296cae8c88cc2396b893478a6d367a3c3670",
        (
            "workclass",
            "education",
            "marital-status",
            "occupation",
            "relationship",
            "race",
            "sex",
            "native-country",
        ),
    ),
    "churn": ShippedTable(
        "fddf95f084329753dd7713ed3e18cd2b097aa038c0e5c19bb9c542f7d9520f6f",
        ("state", "area code"),
        ignore=("phone number",),
    ),
    "coil2000": ShippedTable(
        "253d39e2af4a534944caec4ed6a05527a1e830386baf8c61cd5049a9b8b08b0a",
        ("MOSTYPE", "MOSHOOFD"),
    ),
    "connect-4": ShippedTable(
        "1e1a539a30b260b7a2040b691a3c313b34f155cabce72e185224a63c3ac5ea5b", "all"
    ),
    "fars": ShippedTable(
        "5964499175e62f0b1a91557f8c0924c6437944edf965f7603ceec6b6119ffdc1", "all but AGE"
    ),
    "krkopt": ShippedTable(
        "0ad4ca3e890d6ba121f77c7bae730b271762bca31a7448bee6f9b1807f9970b6", "all"
    ),
    "magic": ShippedTable("34edb17437831ba7fc4e0157d3d01bf36b30a31cf9e8c802211b470d81db429c"),
    "mfeat-factors": ShippedTable(
        "bbab5528542c7b48bac65a98d83039e756c63d6a8cda83fad6415adab6f1e38c"
    ),
    "phoneme": ShippedTable("d703bfacbc8769423e77f7f8f1addccf87bf6e2cc0f44f14b662eb15a1f784fb"),
    "shuttle": ShippedTable("a80ce2e4dd57220649f9040ac1f9166e9c7fed178af5fa64c527251c7b617ad2"),
    "sleep": ShippedTable("d81cfc63c5a8b886ebb8281402d699a49b17889d50fcef012c86cc5097870dba"),
    "spambase": ShippedTable("86ea30003635540affc196305f6aa789acef80fbc492fe25400fa34f740f8847"),
    "waveform-40": ShippedTable("76e3f06e40d8aab5eb5d751a5def188d1ce9c9c3cadba3f0ce87a7bbc5aa4296"),
}


def shipped_file(name: str) -> Path:
    """Return the verified file of a public table, after a download if need be.

    Args:
        name: a name in `SHIPPED`.

    Raises:
        DataError: missing where WHIT_DATA points, corrupt, or not to be downloaded.
        MissingExtra: a download is needed and pooch is not installed.
    """
    return data_file("tabular", f"{name}.tsv.gz", SHIPPED[name].sha256, f"{BASE_URL}{name}/")

"""The 50 alphabets of Omniglot and the labels of their characters, which Omniglot and N-Omniglot share.

    ordered_characters({Character("Greek", 2), Character("Greek", 1)}, ...)    # Greek/character01 has label 0

Labels follow the order background alphabets, evaluation alphabets, each sorted by name, and the character's number, as
far as the alphabets are there. The authors' code takes the folders in the order in which the file system lists them,
which differs between machines, and so between the two data sets.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from typing import NamedTuple

from st_utils.data.checked_files import others
from st_utils.errors import UserError

logger = logging.getLogger(__name__)

DRAWINGS, TRAIN_DRAWINGS = 20, 15  # of each character: 1 to 15 are for training, 16 to 20 for testing
BACKGROUND = {
    "Alphabet_of_the_Magi": 20, "Anglo-Saxon_Futhorc": 29, "Arcadian": 26, "Armenian": 41,
    "Asomtavruli_(Georgian)": 40, "Balinese": 24, "Bengali": 46, "Blackfoot_(Canadian_Aboriginal_Syllabics)": 14,
    "Braille": 26, "Burmese_(Myanmar)": 34, "Cyrillic": 33, "Early_Aramaic": 22, "Futurama": 26, "Grantha": 43,
    "Greek": 24, "Gujarati": 48, "Hebrew": 22, "Inuktitut_(Canadian_Aboriginal_Syllabics)": 16,
    "Japanese_(hiragana)": 52, "Japanese_(katakana)": 47, "Korean": 40, "Latin": 26, "Malay_(Jawi_-_Arabic)": 40,
    "Mkhedruli_(Georgian)": 41, "N_Ko": 33, "Ojibwe_(Canadian_Aboriginal_Syllabics)": 14, "Sanskrit": 42,
    "Syriac_(Estrangelo)": 23, "Tagalog": 17, "Tifinagh": 55,
}  # fmt: skip
EVALUATION = {
    "Angelic": 20, "Atemayar_Qelisayer": 26, "Atlantean": 26, "Aurek-Besh": 26, "Avesta": 26, "Ge_ez": 26,
    "Glagolitic": 45, "Gurmukhi": 45, "Kannada": 41, "Keble": 26, "Malayalam": 47, "Manipuri": 40, "Mongolian": 30,
    "Old_Church_Slavonic_(Cyrillic)": 45, "Oriya": 46, "Sylheti": 28, "Syriac_(Serto)": 23, "Tengwar": 25,
    "Tibetan": 42, "ULOG": 26,
}  # fmt: skip
ALPHABETS = BACKGROUND | EVALUATION  # alphabet -> its number of characters; 1,623 in all


class Character(NamedTuple):
    """A character of an alphabet; `number` counts from 1."""

    alphabet: str
    number: int

    def __str__(self) -> str:
        return f"{self.alphabet}/character{self.number:02d}"


def is_hidden(name: str) -> bool:
    """Whether a folder or file is one that systems leave behind, such as ._0108_01.png or __MACOSX."""
    return name.startswith((".", "__MACOSX"))


def character_of(alphabet: str, folder: str, where: object) -> Character:
    """The character of a folder <alphabet>/characterNN. Raises UserError, naming `where`, for another name."""
    number = folder.removeprefix("character")
    if alphabet not in ALPHABETS or number == folder or not number.isdigit():
        raise UserError(f"{where} is in no folder <alphabet>/characterNN of Omniglot's 50 alphabets: remove it")
    return Character(alphabet, int(number))


def ordered_characters(found: Collection[Character], dataset: str, place: object) -> list[Character]:
    """The characters in the order of their labels, see the top of this file.

    Raises UserError, naming `place`, where an alphabet is there in part: the labels would not be those of the whole.
    """
    characters = []
    for alphabet, count in ALPHABETS.items():
        wanted = [Character(alphabet, number) for number in range(1, count + 1)]
        here = {character for character in found if character.alphabet == alphabet}
        if here and (missing := [character for character in wanted if character not in here]):
            raise UserError(f"{dataset}: {place} lacks {missing[0]}{others(missing)}: unpack it again")
        if extra := sorted(here - set(wanted)):
            raise UserError(f"{dataset}: {place} has {extra[0]}, but {alphabet} has {count} characters: remove it")
        characters += wanted if here else []
    if len(characters) < sum(ALPHABETS.values()):
        there = len({character.alphabet for character in characters})
        logger.warning("%s: %d of 50 alphabets are in %s: %d classes", dataset, there, place, len(characters))
    return characters


def check_drawings(found: Iterable[tuple[Character, int]], dataset: str, place: object) -> None:
    """Raise UserError, naming a character, unless each character has the drawings 1 to 20, once each."""
    numbers: dict[Character, list[int]] = {}
    for character, number in found:
        numbers.setdefault(character, []).append(number)
    for character, here in numbers.items():
        if sorted(here) != list(range(1, DRAWINGS + 1)):
            raise UserError(f"{dataset}: {place} has {len(here)} drawings of {character}, not 1 to 20: unpack it again")


def drawing_number(stem: str, where: object) -> int:
    """The drawing's number, 1 to 20, in a file name NNNN_NN. Raises UserError, naming `where`, for another name."""
    number = stem.rpartition("_")[2]
    if not number.isdigit() or not 1 <= int(number) <= DRAWINGS:
        raise UserError(f"{where} has no drawing's number 01 to 20 at the end of its name: rename or remove it")
    return int(number)


def object_name(character: Character, drawing: int) -> str:
    """The name of a drawing, the same in Omniglot and N-Omniglot: "Greek/character01/16"."""
    return f"{character}/{drawing:02d}"

"""Data of the reader of answers: units, currencies, number words, months, and words that are no unit."""

from __future__ import annotations

from fractions import Fraction

F = Fraction

# --- units: name -> (dimension, how many of the dimension's own) ---

_LENGTHS: dict[str, int | Fraction] = {
    "m": 1,
    "km": 1000,
    "cm": F(1, 100),
    "mm": F(1, 1000),
    "dm": F(1, 10),
    "nm": F(1, 10**9),
    "μm": F(1, 10**6),
    "in": F(254, 10**4),
    "ft": F(3048, 10**4),
    "yd": F(9144, 10**4),
    "mi": F(1609344, 1000),
    "hm": 100,
    "dam": 10,
}
_MASSES: dict[str, int | Fraction] = {
    "g": 1,
    "kg": 1000,
    "mg": F(1, 1000),
    "μg": F(1, 10**6),
    "t": 10**6,
    "lb": F(45359237, 10**5),
    "oz": F(45359237, 16 * 10**5),
}
_TIMES: dict[str, int | Fraction] = {
    "s": 1,
    "ms": F(1, 1000),
    "min": 60,
    "h": 3600,
    "day": 86400,
    "week": 7 * 86400,
}
_VOLUMES: dict[str, int | Fraction] = {
    "L": F(1, 1000),
    "mL": F(1, 10**6),
    "cL": F(1, 10**5),
    "dL": F(1, 10**4),
    "gal": F(3785411784, 10**12),
    "qt": F(3785411784, 4 * 10**12),
    "pt": F(3785411784, 8 * 10**12),
    "cup": F(3785411784, 16 * 10**12),
    "floz": F(3785411784, 128 * 10**12),
    "tbsp": F(3785411784, 256 * 10**12),
    "tsp": F(3785411784, 768 * 10**12),
}

Dimensions = tuple[tuple[str, int], ...]
Measure = tuple[Dimensions, Fraction]

MEASURES: dict[str, Measure] = {
    **{n: ((("length", 1),), F(f)) for n, f in _LENGTHS.items()},
    **{n: ((("mass", 1),), F(f)) for n, f in _MASSES.items()},
    **{n: ((("time", 1),), F(f)) for n, f in _TIMES.items()},
    **{n: ((("length", 3),), F(f)) for n, f in _VOLUMES.items()},
    "hectare": ((("length", 2),), F(10_000)),
    "acre": ((("length", 2),), F(40468564224, 10**7)),
    "month": ((("month", 1),), F(1)),
    "year": ((("month", 1),), F(12)),
    "decade": ((("month", 1),), F(120)),
    "century": ((("month", 1),), F(1200)),
    "usd": ((("usd", 1),), F(1)),
    "cent": ((("usd", 1),), F(1, 100)),
    "gbp": ((("gbp", 1),), F(1)),
    "eur": ((("eur", 1),), F(1)),
    "pence": ((("gbp", 1),), F(1, 100)),
    "eurocent": ((("eur", 1),), F(1, 100)),
    **{
        n: (((n, 1),), F(1))
        for n in (
            "yen",
            "inr",
            "yuan",
            "won",
            "rouble",
            "peso",
            "franc",
            "krona",
            "aud",
            "cad",
            "percent",
            "celsius",
            "fahrenheit",
            "kelvin",
            "radian",
            "cube-unit",
            "mole",
            "dB",
            "calorie",
            "knot",
            "parsec",
            "light-year",
            "unit",
            "candela",
        )
    },
    "degree": ((("degree", 1),), F(1)),
    "arcmin": ((("degree", 1),), F(1, 60)),
    "revolution": ((("counted revolution", 1),), F(1)),
    "rpm": ((("counted revolution", 1), ("time", -1)), F(1, 60)),
    "rps": ((("counted revolution", 1), ("time", -1)), F(1)),
    "kilocalorie": ((("calorie", 1),), F(1000)),
    "mph": ((("length", 1), ("time", -1)), F(1609344, 3600_000)),
    "kmh": ((("length", 1), ("time", -1)), F(1000, 3600)),
    "metric-ton": ((("mass", 1),), F(10**6)),
    "short-ton": ((("mass", 1),), F(45359237 * 2000, 10**5)),
    "permille": ((("permille", 1),), F(1)),
}

# Units that take prefixes: name -> (sign, the prefixes of that sign, dimensions, factor). Names take all of
# them; signs those that are used, for `MN` is more often a segment than a force. A kilobyte is 1000 bytes, a
# kibibyte 1024.
_PREFIXES = {
    "": ("", F(1)),
    "milli": ("m", F(1, 1000)),
    "micro": ("μ", F(1, 10**6)),
    "nano": ("n", F(1, 10**9)),
    "kilo": ("k", F(1000)),
    "mega": ("M", F(10**6)),
    "giga": ("G", F(10**9)),
    "tera": ("T", F(10**12)),
    "kibi": ("Ki", F(2**10)),
    "mebi": ("Mi", F(2**20)),
    "gibi": ("Gi", F(2**30)),
}
_POWER, _ENERGY, _DATA = (("joule", 1), ("time", -1)), (("joule", 1),), (("bit", 1),)
_PREFIXED: dict[str, tuple[str, str, Dimensions, Fraction]] = {
    "hertz": ("Hz", "k M G T", (("hertz", 1),), F(1)),
    "pascal": ("Pa", "k M G", (("pascal", 1),), F(1)),
    "joule": ("J", "m k M G", _ENERGY, F(1)),
    "watt": ("W", "m k M G", _POWER, F(1)),
    "watt-hour": ("Wh", "m k M G T", _ENERGY, F(3600)),
    "electronvolt": ("eV", "m k M G T", _ENERGY, F(1602176634, 10**28)),
    "ampere": ("A", "m μ k", (("ampere", 1),), F(1)),
    "volt": ("V", "m μ k M", (("volt", 1),), F(1)),
    "ohm": ("Ω", "m k M G", (("ohm", 1),), F(1)),
    "newton": ("N", "k", (("newton", 1),), F(1)),
    "bit": ("bit", "k M G T", _DATA, F(1)),
    "byte": ("B", "k M G T Ki Mi Gi", _DATA, F(8)),
    "bps": ("bps", "k M G T", (("bit", 1), ("time", -1)), F(1)),
}

# --- their spellings. One spelling may have several meanings: a pound, an ounce, a degree ---

_SPELLINGS = {
    "m": "m meter meters metre metres",
    "km": "km kms kilometer kilometers kilometre kilometres",
    "cm": "cm cms centimeter centimeters centimetre centimetres",
    "mm": "mm mms millimeter millimeters millimetre millimetres",
    "dm": "dm decimeter decimeters decimetre decimetres",
    "nm": "nm nanometer nanometers nanometre nanometres",
    "μm": "μm micrometer micrometers micrometre micrometres micron microns",
    "in": "in in. inch inches",
    "ft": "ft ft. foot feet",
    "yd": "yd yd. yds yard yards",
    "mi": "mi mi. mile miles",
    "g": "g gram grams gramme grammes gm gms",
    "kg": "kg kgs kilogram kilograms kilogramme kilogrammes kilo kilos",
    "mg": "mg milligram milligrams",
    "μg": "μg microgram micrograms",
    "t": "tonne tonnes",
    "metric-ton": "ton tons",
    "short-ton": "ton tons",
    "lb": "lb lbs lb. lbs. pound pounds",
    "oz": "oz oz. ounce ounces",
    "s": "s sec secs sec. second seconds",
    "ms": "ms millisecond milliseconds",
    "min": "min mins min. minute minutes",
    "h": "h hr hrs hr. hour hours",
    "day": "day days",
    "week": "week weeks wk wks",
    "month": "month months",
    "year": "year years yr yrs yr.",
    "decade": "decade decades",
    "century": "century centuries",
    "L": "L liter liters litre litres ℓ",
    "mL": "mL ml milliliter milliliters millilitre millilitres cc",
    "cL": "cL cl centiliter centiliters centilitre centilitres",
    "dL": "dL dl deciliter deciliters decilitre decilitres",
    "gal": "gal gal. gallon gallons",
    "qt": "qt qts quart quarts",
    "pt": "pint pints",
    "cup": "cup cups",
    "floz": "oz oz. ounce ounces",
    "tbsp": "tbsp tablespoon tablespoons",
    "tsp": "tsp teaspoon teaspoons",
    "hectare": "hectare hectares ha",
    "acre": "acre acres",
    "usd": "$ ＄ dollar dollars usd USD buck bucks US$",
    "cent": "¢ cent cents penny pennies",
    "gbp": "£ pound pounds GBP",
    "pence": "pence",
    "eur": "€ euro euros EUR",
    "eurocent": "cent cents",
    "yen": "¥ yen JPY",
    "inr": "₹ rupee rupees Rs Rs. INR",
    "yuan": "¥ yuan RMB CNY",
    "won": "₩ won KRW",
    "rouble": "₽ ruble rubles rouble roubles RUB",
    "peso": "peso pesos",
    "franc": "franc francs CHF",
    "krona": "krona kronor SEK",
    "aud": "AUD A$ $ ＄ dollar dollars",
    "cad": "CAD C$ $ ＄ dollar dollars",
    "percent": "% percent percents pct per_cent",
    "celsius": "°C ℃ celsius degree_Celsius degrees_Celsius degree_C degrees_C ° degree degrees",
    "fahrenheit": "°F ℉ fahrenheit degree_Fahrenheit degrees_Fahrenheit degree_F degrees_F ° degree degrees",
    "kelvin": "K kelvin kelvins",
    "radian": "rad rads radian radians",
    "degree": "° degree degrees deg",
    "arcmin": "arcminute arcminutes",
    "mole": "mol mole moles",
    "dB": "dB decibel decibels",
    "calorie": "cal calorie calories",
    "kilocalorie": "kcal kilocalorie kilocalories",
    "knot": "knot knots",
    "light-year": "light-year light-years",
    "mph": "mph mph. MPH",
    "kmh": "kmph kph kmh",
    "unit": "unit units",
    "permille": "‰",
    "revolution": "revolution revolutions rev revs",
    "rpm": "rpm RPM",
    "rps": "rps RPS",
}
UNITS: dict[str, tuple[Measure, ...]] = {}
for _name, _said in _SPELLINGS.items():
    for _word in _said.split():
        UNITS[_word] = (*UNITS.get(_word, ()), MEASURES[_name])
for _name, (_sign, _signed, _dimensions, _size) in _PREFIXED.items():
    for _prefix, (_short, _by) in _PREFIXES.items():
        _said = f"{_prefix}{_name} {_prefix}{_name}s"
        for _word in (f"{_said} {_short}{_sign}" if _short in ("", *_signed.split()) else _said).split():
            UNITS.setdefault(_word, ((_dimensions, _by * _size),))
UNITS["KB"], UNITS["amp"], UNITS["amps"] = UNITS["kB"], UNITS["A"], UNITS["A"]
BARE_LETTERS = frozenset("m g s h t L K A V N J W B".split())  # a unit inside of \text{...}, else a variable

# --- numbers in words ---

ONES = {
    w: n
    for n, w in enumerate(
        """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
 sixteen seventeen eighteen nineteen""".split()
    )
}
TENS = {
    w: 10 * n for n, w in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)
} | {"fourty": 40}
SCALES = {
    "hundred": 100,
    "thousand": 1000,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "quadrillion": 10**15,
    "dozen": 12,
    "gross": 144,
    "bn": 10**9,
    "lakh": 10**5,
    "crore": 10**7,
}
PLURAL_SCALES = {
    "hundreds": 100,
    "thousands": 1000,
    "millions": 10**6,
    "billions": 10**9,
    "trillions": 10**12,
    "dozens": 12,
    "mln": 10**6,
}
PARTS = {
    "half": 2,
    "halves": 2,
    "third": 3,
    "thirds": 3,
    "quarter": 4,
    "quarters": 4,
    "fourth": 4,
    "fourths": 4,
    "fifth": 5,
    "fifths": 5,
    "sixth": 6,
    "sixths": 6,
    "seventh": 7,
    "sevenths": 7,
    "eighth": 8,
    "eighths": 8,
    "ninth": 9,
    "ninths": 9,
    "tenth": 10,
    "tenths": 10,
    "twelfth": 12,
    "twelfths": 12,
    "hundredth": 100,
    "hundredths": 100,
    "thousandth": 1000,
    "thousandths": 1000,
}

# --- the calendar ---

MONTHS = {
    name: n
    for n, names in enumerate(
        (
            "january jan",
            "february feb",
            "march mar",
            "april apr",
            "may",
            "june jun",
            "july jul",
            "august aug",
            "september sep sept",
            "october oct",
            "november nov",
            "december dec",
        ),
        1,
    )
    for name in names.split()
}
WEEKDAYS = frozenset("monday tuesday wednesday thursday friday saturday sunday".split())

# --- counted things ---

NOUNS = frozenset(
    """people children men women feet teeth mice geese fish sheep deer dice oxen police persons cattle salmon
 shrimp fruit candy bread pizza milk water juice sugar flour rice money paper wood gold candies cookies
 cherries berries pennies puppies kittens apple egg book student person child man woman box ball marble coin
 card ticket page pencil pen cookie cake pie slice piece bottle can jar bag car bus truck bike dog cat bird
 horse cow pig chicken duck rabbit frog flower tree plant seed leaf orange banana pear peach lemon grape
 cherry strawberry potato carrot tomato onion sandwich burger meal glass cup plate bowl chair table room
 house door window shirt sock shoe hat dress toy doll game point goal vote seat trip mile lap step turn day
 way vertex vertices edge side face triangle square circle rectangle digit integer number solution root term
 factor element member team player boy girl teacher class school friend family worker employee customer
 passenger photo picture song movie video letter word line row column group pack packet crate carton basket
 bucket bunch stack pile tile block brick stick stone rock star button ribbon bead pin key lamp light bulb
 phone computer message call data media criteria matrices indices axes vertices""".split()
)
NO_NOUN = frozenset(
    """hundreds thousands millions billions trillions dozens scores tens ones twos threes fours fives sixes
 sevens eights nines zeros halves thirds quarters fourths fifths sixths sevenths eighths ninths tenths
 hundredths thousandths grosses pairs couples times plus minus less guess yes this thus perhaps always
 sometimes unless across besides is was has does goes equals exceeds remains costs seems looks means makes
 gives gets says needs takes contains includes becomes ours yours hers theirs its others ourselves themselves
 else various previous obvious serious anonymous approximates mods powers exponents logs sines tens lakhs
 crores percents series alas afterwards towards backwards forwards upwards downwards nonsense pis radicals
 primes factorials cross as us his bus gas minus surplus plus ways versus vs etc plusses units' mistakes
 errors sorts kinds reasons bases remainders""".split()
) - {"ways"}
NO_ADJECTIVE = frozenset(
    """not no non never wrong incorrect false maybe perhaps possibly probably about approximately approx
 around nearly almost roughly exactly only more less fewer greater least most than or and but to from minus
 plus times divided over under by mod modulo remainder base is are was were be been isn am has have had does
 do did can could would should will must may might if then else when where which who what why how that this
 these those it its i we you he she they sure unsure unknown undefined infinite negative positive squared
 cubed factorial percent point half third quarter fourth fifth hundred thousand million billion trillion
 dozen gross couple pair score zero one two three four five six seven eight nine ten eleven twelve thirteen
 twenty thirty forty fifty sixty seventy eighty ninety hundreds thousands millions billions trillions dozens
 first second am pm noon midnight north south east west bn mn k january february march april may june july
 august september october november december monday tuesday wednesday thursday friday saturday sunday bc ad
 bce ce any all none neither both each every without except instead too very just extra missing short r
 rounded up down inverse root log sin cos tan""".split()
)
AFTER_A_UNIT = frozenset(
    "old tall long wide high deep away left remaining each total altogether apart".split()
)

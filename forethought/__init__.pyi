"""The types of the lazy names of `__init__.py`; a test holds both to the same names."""

from forethought.api import Callback as Callback
from forethought.api import CallbackError as CallbackError
from forethought.api import Checkpoint as Checkpoint
from forethought.api import Moment as Moment
from forethought.api import Run as Run
from forethought.api import compare as compare
from forethought.api import evaluate as evaluate
from forethought.api import export as export
from forethought.api import open as open
from forethought.api import sample as sample
from forethought.api import swap as swap
from forethought.api import train as train
from forethought.core.errors import ForethoughtError as ForethoughtError
from forethought.core.errors import GateStop as GateStop
from forethought.core.errors import Interrupted as Interrupted
from forethought.core.errors import RecipeError as RecipeError
from forethought.core.errors import UserError as UserError
from forethought.recipe.schema import Recipe as Recipe

__version__: str

from .spending import Bucket as Bucket
from .spending import Purse as Purse
from .spending import Spending as Spending
from .spending import Table as Table

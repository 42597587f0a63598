from .spending import Bucket as Bucket
from .spending import Share as Share
from .spending import Spending as Spending
from .spending import Table as Table

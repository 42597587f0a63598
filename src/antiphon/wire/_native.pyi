from .frames import encode_frame as encode_frame
from .frames import encode_message as encode_message
from .frames import mask as mask
from .parser import Parser as Parser

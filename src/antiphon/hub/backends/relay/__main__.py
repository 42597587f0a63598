"""`python -m antiphon.hub.backends.relay ADDRESS`: a relay by hand, where workers share no parent."""

from .process import main

if __name__ == "__main__":
    main()

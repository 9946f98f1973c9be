//! Sessions with a hand-turned clock.

//! The simulator, the checkers and the suites.

//! One row per requirement.

//! throng-limits

//! What is known of a customer: features, tags, segments, portraits.

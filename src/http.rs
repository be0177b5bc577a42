//! Receives webhooks and answers operators. The only room that knows HTTP.

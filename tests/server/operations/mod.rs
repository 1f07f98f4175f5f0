//! What those who run a server do with it: dump, replicate, pool connections, partition, spread over several
//! servers, upgrade. Each module tells one story; the pages that recommend something take their SQL from here.

mod dump;
mod statements;

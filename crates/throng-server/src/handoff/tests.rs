//! Everything stops, is written down, and goes on elsewhere or here.

mod aftermath;
mod ahead;
mod damage;
mod deltas;
mod encodings;
mod golden;
mod maps;
mod property;
mod speed;
mod threads;
mod tokens;
mod world;

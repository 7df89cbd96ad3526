//! Lamina's contracts: what the layers agree on, and nothing that belongs to one of them alone.
//!
//! In reading order: [`position`] names a prefix of the log, [`catalog`] holds datasets and views, [`values`] turns
//! events into rows, [`log`] is where events live, [`fold`] turns rows into states and states into answers, [`storage`]
//! keeps both in Delta tables, [`master`] and [`view`] say what stands in those tables, [`jobs`] records the work on
//! them, and [`speed`] and [`operate`] are what the layers ask of each other. [`access`] and [`tls`] are who may ask,
//! [`renewed`] what is read anew meanwhile. [`settings`],
//! [`resources`], [`web`] and [`process`] are what every program needs around its work.

pub mod access;
pub mod calls;
pub mod catalog;
pub mod clock;
pub mod fault;
pub mod fold;
pub mod jobs;
pub mod log;
pub mod master;
pub mod operate;
pub mod position;
pub mod process;
pub mod renewed;
pub mod resources;
pub mod settings;
pub mod speed;
pub mod sql;
pub mod statement;
pub mod storage;
pub mod supervisor;
pub mod tls;
pub mod values;
pub mod view;
pub mod web;

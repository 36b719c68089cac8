//! Settings of a table, and what they mean to RocksDB.

use ::rocksdb::{BlockBasedIndexType, BlockBasedOptions, Cache, DBCompressionType, LogLevel, Options};

const MIB: usize = 1 << 20;

/// Settings of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableOptions {
    /// Make it if it is not there.
    pub create: bool,
    /// Blocks of the files kept in memory, with their indexes and filters. Default 64 MiB.
    pub block_cache_bytes: usize,
    /// A write buffer is flushed when it reaches this size; there are at most two. Default 32 MiB.
    pub write_buffer_bytes: usize,
    /// Rows that wait for going into RocksDB together; while they go, up to twice as much may wait. Default 20 MiB:
    /// more than what a log becomes until the table is flushed, so that as a rule all of it is one file.
    pub waiting_bytes: usize,
    /// Rows of so many bytes that go together go in files, not through RocksDB's memory. Default 1 MiB.
    pub file_bytes_min: usize,
    /// Files that are kept open. Default 512; RocksDB wants at least 20.
    pub open_files_max: usize,
    /// Rows that went or were read lately and are kept at hand. Default 24 MiB: more than go at once.
    pub row_cache_bytes: usize,
}

impl Default for TableOptions {
    fn default() -> Self {
        Self {
            create: true,
            block_cache_bytes: 64 * MIB,
            write_buffer_bytes: 32 * MIB,
            waiting_bytes: 20 * MIB,
            file_bytes_min: MIB,
            open_files_max: 512,
            row_cache_bytes: 24 * MIB,
        }
    }
}

impl TableOptions {
    /// All of it for RocksDB.
    pub(super) fn rocksdb(&self) -> Options {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&Cache::new_lru_cache(self.block_cache_bytes));
        blocks.set_cache_index_and_filter_blocks(true);
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
        blocks.set_bloom_filter(10.0, false);
        // In pieces of a block's size: whole ones are as large as hundreds of blocks and drive each other out of the cache, and
        // then every read of a table of gigabytes fetches some of them again.
        blocks.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
        blocks.set_partition_filters(true);
        blocks.set_metadata_block_size(4096);
        let mut settings = common(self.create);
        settings.set_max_open_files(i32::try_from(self.open_files_max).unwrap_or(i32::MAX));
        settings.set_block_based_table_factory(&blocks);
        settings.set_write_buffer_size(self.write_buffer_bytes);
        settings.set_max_write_buffer_number(2);
        // RocksDB's defaults at the default write buffer; kept in proportion at another.
        settings.set_target_file_size_base(2 * self.write_buffer_bytes as u64);
        settings.set_max_bytes_for_level_base(8 * self.write_buffer_bytes as u64);
        settings.set_allow_concurrent_memtable_write(false);
        settings.set_avoid_unnecessary_blocking_io(true);
        // Written out bit by bit, a flush does not hold up the log's syncs on the same disk.
        settings.set_bytes_per_sync(MIB as u64);
        settings
    }
}

/// What is not a matter of size.
fn common(create: bool) -> Options {
    let mut options = Options::default();
    options.create_if_missing(create);
    options.set_paranoid_checks(true);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_max_background_jobs(2);
    options.set_max_manifest_file_size(16 * MIB);
    // RocksDB's own log is for its developers; ours says what matters.
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(MIB);
    options.set_keep_log_file_num(2);
    options.set_stats_dump_period_sec(0);
    options
}

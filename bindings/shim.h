/* What dpdk-sys binds: DPDK's headers, the shim over its inline functions, and the mbuf layout as numbers. */
#ifndef DPDK_SYS_SHIM_H
#define DPDK_SYS_SHIM_H

#include <stddef.h>
#include <stdint.h>

#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_version.h>

/* Where the fields lie that Rust reads and writes without a call; lib.rs asserts that its view agrees. */
enum shim_mbuf_layout {
    SHIM_MBUF_BUF_ADDR = offsetof(struct rte_mbuf, buf_addr),
    SHIM_MBUF_DATA_OFF = offsetof(struct rte_mbuf, data_off),
    SHIM_MBUF_REFCNT = offsetof(struct rte_mbuf, refcnt),
    SHIM_MBUF_NB_SEGS = offsetof(struct rte_mbuf, nb_segs),
    SHIM_MBUF_OL_FLAGS = offsetof(struct rte_mbuf, ol_flags),
    SHIM_MBUF_PKT_LEN = offsetof(struct rte_mbuf, pkt_len),
    SHIM_MBUF_DATA_LEN = offsetof(struct rte_mbuf, data_len),
    SHIM_MBUF_BUF_LEN = offsetof(struct rte_mbuf, buf_len),
    SHIM_MBUF_TX_OFFLOAD = offsetof(struct rte_mbuf, tx_offload),
    SHIM_MBUF_SIZE = sizeof(struct rte_mbuf),
    SHIM_MBUF_ALIGN = _Alignof(struct rte_mbuf),
};

/* Constants that DPDK gives as macros which bindgen cannot evaluate. */
static const uint64_t SHIM_RX_IP_CKSUM_MASK = RTE_MBUF_F_RX_IP_CKSUM_MASK;
static const uint64_t SHIM_RX_IP_CKSUM_BAD = RTE_MBUF_F_RX_IP_CKSUM_BAD;
static const uint64_t SHIM_RX_IP_CKSUM_GOOD = RTE_MBUF_F_RX_IP_CKSUM_GOOD;
static const uint64_t SHIM_RX_L4_CKSUM_MASK = RTE_MBUF_F_RX_L4_CKSUM_MASK;
static const uint64_t SHIM_RX_L4_CKSUM_BAD = RTE_MBUF_F_RX_L4_CKSUM_BAD;
static const uint64_t SHIM_RX_L4_CKSUM_GOOD = RTE_MBUF_F_RX_L4_CKSUM_GOOD;
static const uint64_t SHIM_TX_OFFLOAD_MASK = RTE_MBUF_F_TX_OFFLOAD_MASK;
static const uint64_t SHIM_TX_IPV4 = RTE_MBUF_F_TX_IPV4;
static const uint64_t SHIM_TX_IPV6 = RTE_MBUF_F_TX_IPV6;
static const uint64_t SHIM_TX_UDP_CKSUM = RTE_MBUF_F_TX_UDP_CKSUM;
static const uint64_t SHIM_TX_TCP_CKSUM = RTE_MBUF_F_TX_TCP_CKSUM;
static const uint64_t SHIM_RSS_IP = RTE_ETH_RSS_IP;
static const uint64_t SHIM_RSS_UDP = RTE_ETH_RSS_UDP;
static const uint64_t SHIM_RSS_TCP = RTE_ETH_RSS_TCP;
static const uint64_t SHIM_RX_OFFLOAD_IPV4_CKSUM = RTE_ETH_RX_OFFLOAD_IPV4_CKSUM;
static const uint64_t SHIM_RX_OFFLOAD_UDP_CKSUM = RTE_ETH_RX_OFFLOAD_UDP_CKSUM;
static const uint64_t SHIM_RX_OFFLOAD_TCP_CKSUM = RTE_ETH_RX_OFFLOAD_TCP_CKSUM;
static const uint64_t SHIM_TX_OFFLOAD_UDP_CKSUM = RTE_ETH_TX_OFFLOAD_UDP_CKSUM;
static const uint64_t SHIM_TX_OFFLOAD_TCP_CKSUM = RTE_ETH_TX_OFFLOAD_TCP_CKSUM;
static const uint16_t SHIM_RETA_GROUP_SIZE = RTE_ETH_RETA_GROUP_SIZE;
static const uint16_t SHIM_PKTMBUF_HEADROOM = RTE_PKTMBUF_HEADROOM;

/* Takes up to `count` packets off a receive queue into `packets`; returns how many. */
uint16_t shim_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count);
/* Offers `count` packets to a transmit queue; it owns as many, from the front, as are returned. */
uint16_t shim_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count);
/* Takes exactly `count` fresh mbufs out of the pool and returns 0, or takes none and returns a negative errno. */
int shim_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int count);
/* Gives an mbuf and all its segments back. */
void shim_free(struct rte_mbuf *mbuf);
/* Moves all segments into the first one; -1 if they do not fit, and then the mbuf is as before. */
int shim_linearize(struct rte_mbuf *mbuf);
/* 1 when the link is up, 0 when it is down, a negative errno when the driver cannot tell. Does not wait. */
int shim_link_up(uint16_t port);
/* The calling thread's rte_errno. */
int shim_errno(void);

/* Takes DPDK's log text: the level (1 emergency .. 8 debug), and bytes that are not NUL-terminated. */
typedef void (*shim_log_sink)(int level, const char *text, size_t length);
/* Sends all further log output of DPDK to `sink` instead of standard error and syslog; 0 or -1. Call it once. */
int shim_log_to(shim_log_sink sink);

#endif
